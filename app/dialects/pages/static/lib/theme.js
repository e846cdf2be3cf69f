/* Before anything is painted: the theme that was chosen here. Not a module, which would be too late. */
(() => {
  "use strict";
  let chosen = null;
  try {
    chosen = localStorage.getItem("llmhost.theme");
  } catch {
    // storage is off: the system's theme it is
  }
  if (chosen === "light" || chosen === "dark") document.documentElement.dataset.theme = chosen;
})();
