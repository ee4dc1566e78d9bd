// A live page: told by the server that something has changed, it fetches itself and shows what differs.
// Only a page that is looked at keeps a connection, so that many open ones do not use up the browser's.

import { morph } from "./morph.js";
import { setClock } from "./times.js";
import { watchChoice } from "./choose.js";

const LEAST_MS = { job: 300, all: 2000 }; // between two looks; of a slow page four times what one takes
const LEAST_ELSE_MS = 700;
const LONGEST_MS = 15000; // a page that shows running clocks looks at least so often
const PATIENCE_MS = [500, 1000, 2000, 4000, 8000]; // before each further try to connect
const TOLD = ["reset", "jobs", "family", "job", "log", "end"];

const root = document.body.dataset.root ?? "";
const main = document.querySelector("main");

let source = null;
let followed = "";
let tries = 0;
let lost = false;
let trouble = false;
let looking = false;
let again = false;
let timer = null;
let took = 0;
let looked = Date.now();

export function goLive() {
  document.querySelector(".nav [aria-current]")?.scrollIntoView({ block: "nearest", inline: "center" });
  toEnd(main.querySelector("[data-tail]"));
  if (!main.dataset.live) return;
  document.addEventListener("visibilitychange", () => (document.hidden ? rest() : connect()));
  addEventListener("pagehide", rest);
  addEventListener("pageshow", (event) => event.persisted && connect());
  setInterval(() => { if (!document.hidden && Date.now() - looked > LONGEST_MS) soon(); }, 1000);
  connect();
}

// What the page says that it shows: `all`, `jobs`, `family`, or `job:7`, behind which `:unfinished` may stand.
function wanted() {
  const [kind, job, unfinished] = main.dataset.live.split(":");
  return { kind, job, unfinished };
}

function address() {
  const { kind, job, unfinished } = wanted();
  if (unfinished) return `${root}/api/v1/jobs/${job}/events`;
  return `${root}/api/v1/events${kind === "job" ? `?job=${job}&family=false` : ""}`;
}

function connect() {
  if (source || document.hidden) return;
  followed = address();
  source = new EventSource(followed);
  source.onopen = () => {
    tries = 0;
    regained();
    soon(); // what changed before it was heard
  };
  for (const name of TOLD) {
    source.addEventListener(name, (event) => {
      if (name === "reset") recovered();
      if (name === "end") setTimeout(restart, 1000);
      if (concerns(name, event.data)) soon();
    });
  }
  source.addEventListener("trouble", () => broken("The database does not answer"));
  source.onerror = failed;
}

function rest() {
  source?.close();
  source = null;
}

function restart() {
  rest();
  connect();
}

function failed() {
  rest();
  const wait = PATIENCE_MS[Math.min(tries, PATIENCE_MS.length - 1)];
  tries += 1;
  if (!lost) state("", "not live");
  fetch(`${root}/livez`, { cache: "no-store" }).then((answer) => {
    if (!answer.ok) throw new Error(answer.status);
    if (lost) regained();
  }).catch(away);
  setTimeout(connect, wait);
}

// What a message tells decides whether this page is another one now.
function concerns(name, data) {
  const { kind } = wanted();
  if (name === "family") return kind === "family" || kind === "all";
  if (name !== "jobs" || kind !== "jobs") return true;
  const shown = new Set([...main.querySelectorAll("[data-job]")].map((row) => row.dataset.job));
  const words = new URLSearchParams(location.search);
  return JSON.parse(data).jobs.some((job) => shown.has(String(job.id)) || fits(job, words));
}

function fits(job, words) {
  if (job.state === "gone" || words.get("before")) return false;
  return ["queue", "state"].every((name) => !words.get(name) || words.get(name) === job[name]);
}

function soon() {
  if (looking) again = true;
  if (timer || looking) return;
  const least = Math.max(LEAST_MS[wanted().kind] ?? LEAST_ELSE_MS, 4 * took);
  timer = setTimeout(look, Math.max(0, looked + least - Date.now()));
}

async function look() {
  timer = null;
  looking = true;
  again = false;
  const began = Date.now();
  try {
    const answer = await fetch(location.href, { headers: { Accept: "text/html", "X-Live": "1" }, cache: "no-store" });
    if (answer.redirected) location.reload(); // to sign in again
    else if (answer.status >= 500) broken("The database does not answer");
    else show(await answer.text());
    if (lost) regained();
  } catch {
    away();
  }
  looking = false;
  looked = Date.now();
  took = looked - began;
  if (again) soon();
}

function show(text) {
  const fresh = new DOMParser().parseFromString(text, "text/html");
  const page = fresh.querySelector("main");
  if (!page || isInUse()) return;
  const said = main.querySelector("[data-said]");
  if (said) page.prepend(document.importNode(said, true));
  const tail = main.querySelector("[data-tail]");
  const atEnd = tail && tail.scrollHeight - tail.scrollTop - tail.clientHeight < 8;
  morph(main, page);
  if (atEnd || !tail) toEnd(main.querySelector("[data-tail]"));
  const old = document.querySelector(".foot");
  const foot = fresh.querySelector(".foot");
  if (old && foot) morph(old, foot);
  document.title = fresh.title;
  setClock(Number(fresh.body.dataset.now));
  watchChoice();
  recovered();
  if (source && followed !== address()) restart();
}

function toEnd(tail) {
  if (tail) tail.scrollTop = tail.scrollHeight;
}

// While a person selects text the page stands still.
function isInUse() {
  const selection = getSelection();
  return selection && !selection.isCollapsed && main.contains(selection.anchorNode) && !document.activeElement?.matches("input, textarea");
}

function state(kind, word) {
  const sign = document.querySelector("[data-live-state]");
  sign.hidden = false;
  sign.dataset.state = kind;
  sign.textContent = word;
}

function away() {
  state("lost", "lost");
  if (lost) return;
  lost = true;
  banner("The server has not answered");
  say("The server does not answer.");
}

function regained() {
  state("live", "live");
  if (!lost) return;
  lost = false;
  trouble = false;
  banner("");
  say("The server answers again.");
  soon();
}

function broken(what) {
  if (lost || trouble) return;
  trouble = true;
  banner(what);
  say(`${what}.`);
}

function recovered() {
  if (!trouble) return;
  trouble = false;
  banner("");
  say("All is answered again.");
}

function banner(what) {
  const place = document.querySelector("[data-lost]");
  place.hidden = !what;
  if (what) place.textContent = `${what} since ${new Date().toLocaleTimeString()}: what is shown is as it was then. Trying again.`;
}

function say(text) {
  document.querySelector("[data-status]").textContent = text;
}
