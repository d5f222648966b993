"use strict";
// Before anything is painted: scripts are there, and the reader's theme if one was chosen.
(() => {
  const root = document.documentElement;
  root.classList.add("js");
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const mode = () => root.dataset.theme ?? (dark.matches ? "dark" : "light");
  const kept = localStorage.getItem("theme");
  if (kept === "dark" || kept === "light") root.dataset.theme = kept;

  const tell = () => document.dispatchEvent(new CustomEvent("theme", { detail: mode() }));
  dark.addEventListener("change", tell);
  addEventListener("DOMContentLoaded", () => {
    const button = document.getElementById("theme");
    const label = () => {
      button.textContent = mode() === "dark" ? "Light theme" : "Dark theme";
    };
    button.addEventListener("click", () => {
      root.dataset.theme = mode() === "dark" ? "light" : "dark";
      localStorage.setItem("theme", root.dataset.theme);
      tell();
    });
    document.addEventListener("theme", label);
    label();
  });
  window.scisciTheme = mode;
})();
