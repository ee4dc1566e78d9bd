// Forms that ask first show their question on this page instead of another one.

export function askFirst() {
  document.addEventListener("submit", (event) => {
    const form = event.target;
    if (!form.matches("form[data-asks]") || typeof HTMLDialogElement === "undefined") return;
    event.preventDefault();
    ask(form, event.submitter);
  });
}

async function ask(form, button) {
  const body = new URLSearchParams(new FormData(form, button));
  try {
    const answer = await fetch(form.action, { method: "POST", body, headers: { Accept: "text/html" } });
    const page = new DOMParser().parseFromString(await answer.text(), "text/html");
    const question = page.querySelector("[data-question] .question");
    const error = page.querySelector("[data-error]");
    if (question || error) open(document.importNode(question ?? error, true), button ?? form);
    else location.assign(answer.redirected ? answer.url : location.href);
  } catch {
    // Without what this script adds; the browser shows what is wrong.
    form.removeAttribute("data-asks");
    form.requestSubmit(button?.form === form ? button : null);
  }
}

function open(question, from) {
  const dialog = document.createElement("dialog");
  dialog.setAttribute("aria-labelledby", "asked");
  const head = question.querySelector("h1");
  const title = document.createElement("h2");
  title.id = "asked";
  title.append(...head.childNodes);
  head.replaceWith(title);
  dialog.append(question);
  const no = question.querySelector("[data-no]");
  if (question.matches("[data-error]")) no.textContent = "Close";
  no.addEventListener("click", (event) => {
    event.preventDefault();
    dialog.close();
  });
  dialog.addEventListener("click", (event) => event.target === dialog && dialog.close());
  dialog.addEventListener("close", () => {
    dialog.remove();
    if (from.isConnected) from.focus?.();
  });
  document.body.append(dialog);
  dialog.showModal();
}
