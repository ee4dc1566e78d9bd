// Rows that are chosen: all of a page at once, how many they are, and buttons that wait for one.

export function watchChoice() {
  for (const form of document.querySelectorAll("form[data-choice]")) {
    if (form.bound) count(form);
    else bind(form);
  }
}

function bind(form) {
  form.bound = true;
  form.addEventListener("change", (event) => {
    if (event.target.matches("[data-choose-all]")) {
      for (const box of boxes(form)) box.checked = event.target.checked;
    }
    count(form);
  });
  count(form);
}

function boxes(form) {
  return [...form.querySelectorAll('input[name="id"]')];
}

function count(form) {
  const all = form.querySelector("[data-choose-all]");
  if (!all) return;
  const chosen = boxes(form).filter((box) => box.checked).length;
  all.hidden = false;
  all.checked = chosen > 0 && chosen === boxes(form).length;
  all.indeterminate = chosen > 0 && !all.checked;
  form.querySelector("[data-chosen]").textContent = chosen ? `${chosen} chosen:` : "None chosen:";
  for (const button of form.querySelectorAll("[data-needs-choice]")) button.disabled = !chosen;
}
