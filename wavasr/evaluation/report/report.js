"use strict";
for (const table of document.querySelectorAll("table.sortable")) {
  table.querySelectorAll("th").forEach((th, column) => {
    if (!th.textContent) return;
    const button = document.createElement("button");
    button.textContent = th.textContent;
    th.replaceChildren(button);
    button.addEventListener("click", () => {
      const body = table.tBodies[0];
      const down = th.getAttribute("aria-sort") !== "descending";
      const key = (row) => row.cells[column].textContent.trim();
      const number = (row) => parseFloat(key(row).replaceAll(",", "")) || 0;
      const order = th.classList.contains("number")
        ? (a, b) => number(a) - number(b)
        : (a, b) => key(b).localeCompare(key(a), undefined, { numeric: true });
      const rows = [...body.rows].sort((a, b) => (down ? -1 : 1) * order(a, b));
      table.querySelectorAll("th").forEach((other) => other.removeAttribute("aria-sort"));
      th.setAttribute("aria-sort", down ? "descending" : "ascending");
      body.append(...rows);
    });
  });
}
for (const input of document.querySelectorAll("input.filter")) {
  input.hidden = false;
  const rows = [...input.closest("details").querySelectorAll("tbody tr")];
  input.addEventListener("input", () => {
    const wanted = input.value.toLowerCase();
    for (const row of rows) row.hidden = !row.textContent.toLowerCase().includes(wanted);
  });
}
