// The colours: as the system has them, or as somebody chose; remembered in a cookie that the server reads.

const NEXT = { auto: "dark", dark: "light", light: "auto" };
const YEAR_S = 31536000;

export function keepTheme() {
  const form = document.querySelector("[data-theme-form]");
  form?.addEventListener("submit", (event) => {
    event.preventDefault();
    const page = document.documentElement;
    choose(form, NEXT[page.dataset.theme] ?? "auto");
  });
}

function choose(form, theme) {
  const path = document.body.dataset.root || "/";
  document.cookie = `jobvisor_theme=${theme}; path=${path}; max-age=${YEAR_S}; samesite=strict`;
  document.documentElement.dataset.theme = theme;
  const button = form.querySelector("button");
  button.value = NEXT[theme];
  button.title = `Colours: ${theme}`;
  form.querySelector("[data-theme-word]").textContent = `Colours: ${theme}; change to ${NEXT[theme]}`;
}
