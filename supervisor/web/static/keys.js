// Keys: two letters lead to a page, / to the search, ? tells them all. None is taken from a field.

const PAGES = {
  o: "overview", q: "queues", j: "jobs", f: "failures", w: "workers", m: "families", t: "tasks", s: "schedules", l: "limits", a: "actions",
};
const PATIENCE_MS = 1200; // between the two letters

let begun = 0;

export function bindKeys() {
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.isComposing) return;
    if (event.target.closest("input, textarea, select, dialog, [contenteditable]")) return;
    if (isSecond(event)) return;
    if (event.key === "g") begun = Date.now();
    else if (event.key === "/") reach(event);
    else if (event.key === "?") tell();
  });
}

function isSecond(event) {
  const page = Date.now() - begun < PATIENCE_MS ? PAGES[event.key] : undefined;
  begun = 0;
  if (!page) return false;
  const link = [...document.querySelectorAll(".nav a")].find((each) => each.textContent.toLowerCase() === page);
  link?.click();
  return Boolean(link);
}

function reach(event) {
  const search = document.querySelector("[data-search]");
  if (!search) return;
  event.preventDefault();
  search.focus();
  search.select();
}

function tell() {
  const dialog = document.createElement("dialog");
  dialog.setAttribute("aria-labelledby", "keys-title");
  dialog.innerHTML = '<div class="question"><h2 id="keys-title">Keys</h2><dl class="keys"></dl><form class="acts" method="dialog"><button class="first">Close</button></form></div>';
  const list = dialog.querySelector("dl");
  const rows = [...Object.entries(PAGES).map(([key, page]) => [`g ${key}`, page]), ["/", "search"], ["?", "these keys"]];
  for (const [keys, what] of rows) {
    const term = document.createElement("dt");
    for (const key of keys.split(" ")) {
      const shown = document.createElement("kbd");
      shown.textContent = key;
      term.append(shown, " ");
    }
    const told = document.createElement("dd");
    told.textContent = what;
    list.append(term, told);
  }
  dialog.addEventListener("close", () => dialog.remove());
  document.body.append(dialog);
  dialog.showModal();
}
