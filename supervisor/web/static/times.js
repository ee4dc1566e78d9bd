// How long ago each moment was, kept true while the page is open: by the server's clock.

const UNITS = [["d", 86400], ["h", 3600], ["min", 60], ["s", 1]];
const EVERY_MS = 1000;

let ahead = 0; // of this machine's clock, in milliseconds

export function setClock(serverNow) {
  ahead = Date.now() - serverNow;
}

function distance(past) {
  const size = Math.abs(past);
  if (size < 1) return "now";
  const [unit, one] = UNITS.find(([, seconds]) => size >= seconds);
  const told = `${Math.floor(size / one)} ${unit}`;
  return past > 0 ? `${told} ago` : `in ${told}`;
}

function tell() {
  const now = Date.now() - ahead;
  for (const time of document.querySelectorAll("time[data-ago]")) {
    const words = distance((now - Date.parse(time.dateTime)) / 1000);
    if (time.textContent !== words) time.textContent = words;
  }
}

export function tellTimes() {
  setClock(Number(document.body.dataset.now));
  setInterval(() => document.hidden || tell(), EVERY_MS);
}
