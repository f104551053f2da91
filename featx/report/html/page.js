"use strict";
(() => {
  document.documentElement.classList.add("js");
  const data = JSON.parse(document.getElementById("data").textContent);
  const byId = (id) => document.getElementById(id);
  const escaped = new Map(Object.entries(data.shown));
  const shown = (name) => escaped.get(name) ?? name;

  // Tables: a click on a column's name sorts by it, another one the other way round.
  for (const table of document.querySelectorAll("table.sortable")) {
    const heads = [...table.tHead.rows[0].cells];
    heads.forEach((head, column) => head.querySelector("button").addEventListener("click", () => {
      const down = head.getAttribute("aria-sort") === "ascending";
      heads.forEach((other) => other.setAttribute("aria-sort", "none"));
      head.setAttribute("aria-sort", down ? "descending" : "ascending");
      const value = (row) => row.cells[column].dataset.value;
      const compare = column === 0 ? (a, b) => value(a).localeCompare(value(b)) : (a, b) => value(a) - value(b);
      const rows = [...table.tBodies[0].rows].sort(compare);
      table.tBodies[0].append(...(down ? rows.reverse() : rows));
    }));
  }

  // Confusion matrices: one at a time, and the images behind a cell.
  const which = byId("which-matrix");
  which?.addEventListener("change", () => {
    for (const matrix of document.querySelectorAll(".matrix")) matrix.toggleAttribute("data-other", matrix.id !== which.value);
  });
  const dialog = byId("images");
  const figure = (path, text) => {
    const item = document.createElement("li");
    if (data.thumbnails[path]) {
      const image = document.createElement("img");
      image.src = data.thumbnails[path];
      image.alt = text;
      image.width = image.height = 96;
      item.append(image);
    }
    const name = document.createElement("p");
    name.className = "path";
    name.textContent = shown(path);
    item.append(name);
    return item;
  };
  document.addEventListener("click", (event) => {
    const cell = event.target.closest(".cell");
    if (!cell) return;
    const { approach, label, predicted, paths } = data.cells[cell.dataset.number];
    byId("images-title").textContent = `${approach}: ${shown(label)} taken for ${shown(predicted)}, the surest ${paths.length}`;
    byId("images-list").replaceChildren(...paths.map((path) => figure(path, `Test image of ${shown(label)}`)));
    dialog.showModal();
  });

  // The map.
  const canvas = byId("map-canvas");
  if (!canvas) return;
  const colours = ["#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#8f7a00", "#7570b3", "#999999", "#a6761d"];
  const colourBy = byId("map-colour"), filter = byId("map-filter"), tip = byId("map-tip"), said = byId("map-said");
  const colourOfClass = (label) => colours[data.classes.indexOf(label) % colours.length];
  const isRight = (point) => point[1] === point[2];
  const colour = (point) => (colourBy.value === "right" ? (isRight(point) ? colours[4] : colours[5]) : colourOfClass(point[1]));
  const visible = () => data.points.filter((p) => !filter.value || (filter.value === "wrong" ? !isRight(p) : p[1] === data.classes[filter.value]));
  const margin = 14;
  let current = null;
  const place = (point) => [margin + point[3] * (canvas.clientWidth - 2 * margin), margin + (1 - point[4]) * (canvas.clientHeight - 2 * margin)];
  const draw = () => {
    const ratio = window.devicePixelRatio || 1;
    canvas.width = canvas.clientWidth * ratio;
    canvas.height = canvas.clientHeight * ratio;
    const pen = canvas.getContext("2d");
    pen.scale(ratio, ratio);
    for (const point of visible()) {
      const [x, y] = place(point);
      pen.beginPath();
      pen.fillStyle = colour(point);
      pen.globalAlpha = point === current ? 1 : 0.75;
      if (colourBy.value === "right" && !isRight(point)) pen.rect(x - 4, y - 4, 8, 8);
      else pen.arc(x, y, point === current ? 7 : 4, 0, 7);
      pen.fill();
      if (point === current) { pen.strokeStyle = getComputedStyle(canvas).color; pen.lineWidth = 2; pen.stroke(); }
    }
    const entries = colourBy.value === "right" ? [["right", colours[4]], ["wrong (squares)", colours[5]]] : data.classes.map((name) => [name, colourOfClass(name)]);
    byId("map-legend").replaceChildren(...entries.map(([name, hue]) => {
      const entry = document.createElement("span"), dot = document.createElement("i");
      dot.style.background = hue;
      entry.append(dot, shown(name));
      return entry;
    }));
  };
  const describe = (point) => `${shown(point[1])}${isRight(point) ? "" : `, taken for ${shown(point[2])}`}: ${shown(point[0])}`;
  const select = (point) => {
    current = point;
    tip.hidden = !point;
    if (point) {
      const [x, y] = place(point);
      const parts = [document.createTextNode(describe(point))];
      if (data.thumbnails[point[0]]) {
        const image = document.createElement("img");
        image.src = data.thumbnails[point[0]];
        image.alt = "";
        parts.unshift(image);
      }
      tip.replaceChildren(...parts);
      tip.style.left = `${Math.max(0, Math.min(x + 14, canvas.clientWidth - tip.offsetWidth))}px`;
      tip.style.top = `${Math.max(0, y + 14 + tip.offsetHeight > canvas.clientHeight ? y - 14 - tip.offsetHeight : y + 14)}px`;
    }
    draw();
  };
  const nearest = (x, y, among) => among.reduce((best, point) => {
    const [px, py] = place(point), distance = Math.hypot(px - x, py - y);
    return distance < best[1] ? [point, distance] : best;
  }, [null, Infinity]);
  canvas.addEventListener("pointermove", (event) => {
    const box = canvas.getBoundingClientRect();
    const [point, distance] = nearest(event.clientX - box.left, event.clientY - box.top, visible());
    select(distance < 16 ? point : null);
  });
  canvas.addEventListener("pointerleave", () => select(null));
  const directions = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
  canvas.addEventListener("keydown", (event) => {
    const direction = directions[event.key];
    if (!direction) return;
    event.preventDefault();
    const points = visible();
    if (!points.length) return;
    const [x, y] = current ? place(current) : [canvas.clientWidth / 2, canvas.clientHeight / 2];
    const ahead = points.filter((point) => {
      const [px, py] = place(point), along = (px - x) * direction[0] + (py - y) * direction[1];
      return point !== current && along > 0 && along >= Math.abs((px - x) * direction[1]) + Math.abs((py - y) * direction[0]);
    });
    const [point] = nearest(x, y, current ? ahead : points);
    if (point) { select(point); said.textContent = describe(point); }
  });
  for (const control of [colourBy, filter]) control.addEventListener("change", () => select(null));
  window.addEventListener("resize", () => select(null));
  window.matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
  draw();
})();
