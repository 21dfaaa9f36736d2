// The page without the 3D view: tables sort by a click on a head, rows and nodes mark their photo.
"use strict";
(function () {
  const NUMBER = "[-+]?[\\d,]*\\.?\\d+(?:e[-+]?\\d+)?";
  const FACTORS = { mm: 0.001, cm: 0.01, m: 1, s: 1, min: 60, h: 3600 };
  const PART = new RegExp(`(${NUMBER})\\s(${Object.keys(FACTORS).join("|")})(?!\\w)\\s*`, "g");
  const read = (text) => Number.parseFloat(text.replace(/,/g, ""));

  /** The number that a text is, NaN if it is none: 9.5 mm is less than 1.2 cm, 59 s than 1 min 2 s. */
  function number(text) {
    const parts = [...text.matchAll(PART)];
    if (parts.length && parts.map((part) => part[0]).join("") === text)
      return parts.reduce((sum, part) => sum + read(part[1]) * FACTORS[part[2]], 0);
    return new RegExp(`^${NUMBER}([\\s°%]|$)`).test(text) ? read(text) : NaN;
  }

  /** What a cell sorts by: its number where it is one, with or without a unit, else its text. */
  function value(row, column) {
    const text = row.cells[column].textContent.trim();
    return { text, figure: number(text) };
  }

  function compare(a, b) {
    const numbers = !Number.isNaN(a.figure) && !Number.isNaN(b.figure);
    if (numbers && a.figure !== b.figure) return a.figure - b.figure;
    if (Number.isNaN(a.figure) !== Number.isNaN(b.figure)) return Number.isNaN(a.figure) ? 1 : -1;
    return a.text.localeCompare(b.text, undefined, { numeric: true });
  }

  for (const table of document.querySelectorAll("table.sortable")) {
    const heads = [...table.tHead.rows[0].cells];
    heads.forEach((head, column) => {
      if (head.classList.contains("still")) return;
      const button = document.createElement("button");
      button.type = "button";
      button.append(...head.childNodes);
      head.append(button);
      button.addEventListener("click", () => {
        const down = head.getAttribute("aria-sort") === "ascending";
        heads.forEach((other) => other.removeAttribute("aria-sort"));
        head.setAttribute("aria-sort", down ? "descending" : "ascending");
        const body = table.tBodies[0];
        const rows = [...body.rows].map((row) => ({ row, key: value(row, column) }));
        rows.sort((a, b) => {
          if (a.key.text === "" || b.key.text === "") return (a.key.text === "") - (b.key.text === "");
          return down ? compare(b.key, a.key) : compare(a.key, b.key);
        });
        body.append(...rows.map((item) => item.row));
      });
    });
  }

  /** The figures of a row of the table of photos, with their heads. */
  window.reportFigures = function (row) {
    const heads = [...row.closest("table").tHead.rows[0].cells];
    return [...row.cells].slice(2)
      .map((cell, i) => [heads[i + 2].textContent, cell.textContent.trim()])
      .filter(([, text]) => text)
      .map(([head, text]) => `${head} ${text}`).join(" · ");
  };

  const tell = (photo) =>
    document.dispatchEvent(new CustomEvent("photo", { detail: { photo, from: "page" } }));

  const rows = [...document.querySelectorAll("tr[data-photo]")];
  for (const row of rows) {
    row.tabIndex = 0;
    row.addEventListener("click", () => tell(Number(row.dataset.photo)));
    row.addEventListener("keydown", (event) => {
      if (event.key === "Enter") tell(Number(row.dataset.photo));
    });
  }
  for (const node of document.querySelectorAll("circle[data-photo]"))
    node.addEventListener("click", () => tell(Number(node.dataset.photo)));

  document.addEventListener("photo", (event) => {
    for (const row of rows)
      row.classList.toggle("marked", Number(row.dataset.photo) === event.detail.photo);
    for (const node of document.querySelectorAll("circle[data-photo]"))
      node.classList.toggle("marked", Number(node.dataset.photo) === event.detail.photo);
    const marked = document.querySelector("tr.marked");
    const box = marked && marked.closest(".scroll");
    if (box && event.detail.from === "viewer")
      box.scrollTop = marked.offsetTop - box.clientHeight / 2;
  });
})();
