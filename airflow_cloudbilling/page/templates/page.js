"use strict";
// Within Airflow's frame, which may neither navigate its window nor, in Airflow 3.2, download: links to Airflow's own
// pages and to files are followed there, and light or dark is as Airflow has it. Without it everything can still be read.
(() => {
  if (window.parent === window) return;
  let airflow;
  try { airflow = window.parent.document; } catch { return; }
  const root = airflow.documentElement;
  const dress = () => {
    const dark = root.classList.contains("dark") || root.dataset.theme === "dark";
    document.documentElement.dataset.theme = dark ? "dark" : "light";
  };
  dress();
  new MutationObserver(dress).observe(root, { attributes: true, attributeFilter: ["class", "data-theme"] });
  document.addEventListener("click", (event) => {
    const link = event.target.closest("a[data-top]");
    if (!link || event.button !== 0 || event.metaKey || event.ctrlKey || event.shiftKey) return;
    event.preventDefault();
    const there = airflow.createElement("a");
    there.href = link.href;
    there.click();
  });
})();
