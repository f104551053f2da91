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

  // Confusion matrices: one approach at a time, and the images behind a number.
  const which = byId("which-matrix");
  which?.addEventListener("change", () => {
    for (const part of document.querySelectorAll(".approach")) part.toggleAttribute("data-other", part.id !== which.value);
  });
  const dialog = byId("images");
  const link = (path) => {
    try {
      return data.base && data.base + path.split("/").map(encodeURIComponent).join("/");
    } catch {
      return "";  // a name that is no text
    }
  };
  const figure = (path, text) => {
    const item = document.createElement("li"), name = document.createElement("p");
    if (data.thumbnails[path]) {
      const image = document.createElement("img");
      image.src = data.thumbnails[path];
      image.alt = text;
      image.width = image.height = 128;
      const frame = document.createElement(link(path) ? "a" : "span");
      if (link(path)) frame.href = link(path);
      frame.append(image);
      item.append(frame);
    }
    name.className = "path";
    name.textContent = shown(path);
    item.append(name);
    return item;
  };
  const show = (title, label, paths) => {
    byId("images-title").textContent = title;
    byId("images-list").replaceChildren(...paths.map((path) => figure(path, `Test image of ${shown(label)}`)));
    dialog.showModal();
  };
  document.addEventListener("click", (event) => {
    const cell = event.target.closest(".cell");
    if (!cell) return;
    const { approach, label, predicted, paths } = data.cells[cell.dataset.number];
    show(`${approach}: ${shown(label)} predicted as ${shown(predicted)} (${paths.length === 1 ? "1 image" : `${paths.length} most confident`})`, label, paths);
  });

  // The map.
  const plot = byId("map-plot");
  if (!plot) return;
  const shapes = [
    "M-4 0a4 4 0 1 0 8 0a4 4 0 1 0-8 0z", "M-3.7-3.7h7.4v7.4h-7.4z", "M0-5.2L5.2 0L0 5.2L-5.2 0z", "M0-5L4.9 3.8H-4.9z",
    "M0 5L4.9-3.8H-4.9z", "M-1.7-4.7h3.4v3h3v3.4h-3v3h-3.4v-3h-3v-3.4h3z",
  ];
  const nColours = 8, most = nColours * shapes.length;
  const colourBy = byId("map-colour"), filter = byId("map-filter"), tip = byId("map-tip"), said = byId("map-said");
  const labels = new Map(data.classes.map((name, number) => [name, number]));
  const isRight = (point) => point[1] === point[2];
  // No two of the first 48 classes have both the colour and the shape in common.
  const look = (number) => [number % nColours, (number + Math.floor(number / nColours)) % shapes.length];
  const lookOf = (point) => look(colourBy.value === "right" ? Number(!isRight(point)) : labels.get(point[1]));
  const svg = (name, attributes) => {
    const element = document.createElementNS("http://www.w3.org/2000/svg", name);
    for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
    return element;
  };
  const mark = ([colour, shape], attributes) => svg("path", { d: shapes[shape], class: `k${colour}`, ...attributes });
  const visible = () => data.points.filter((p) => !filter.value || (filter.value === "wrong" ? !isRight(p) : p[1] === data.classes[filter.value]));
  const margin = 14;
  let current = null, marks = new Map();
  const place = (point) => [margin + point[3] * (plot.clientWidth - 2 * margin), margin + (1 - point[4]) * (plot.clientHeight - 2 * margin)];
  const draw = () => {
    plot.setAttribute("viewBox", `0 0 ${plot.clientWidth} ${plot.clientHeight}`);
    marks = new Map(visible().map((point) => [point, mark(lookOf(point), { transform: `translate(${place(point).map((value) => value.toFixed(1))})` })]));
    plot.replaceChildren(...marks.values());
    const names = colourBy.value === "right" ? ["right", "wrong"] : data.classes.slice(0, most).map(shown);
    const entries = names.map((name, number) => {
      const entry = document.createElement("span"), box = svg("svg", { viewBox: "-6 -6 12 12", "aria-hidden": "true" });
      box.append(mark(look(number), {}));
      entry.append(box, name);
      return entry;
    });
    const rest = data.classes.length - most;
    if (colourBy.value !== "right" && rest > 0) entries.push(`and ${rest.toLocaleString("en")} more, which reuse these marks`);
    byId("map-legend").replaceChildren(...entries);
  };
  const describe = (point) => `${shown(point[1])}${isRight(point) ? "" : `, predicted as ${shown(point[2])}`}: ${shown(point[0])}`;
  const select = (point) => {
    marks.get(current)?.classList.remove("current");
    current = point;
    tip.hidden = !point;
    if (!point) return;
    const chosen = marks.get(point), [x, y] = place(point);
    chosen?.classList.add("current");
    if (chosen) plot.append(chosen);  // on top
    const parts = [document.createTextNode(describe(point))];
    if (data.thumbnails[point[0]]) {
      const image = document.createElement("img");
      image.src = data.thumbnails[point[0]];
      image.alt = "";
      parts.unshift(image);
    }
    tip.replaceChildren(...parts);
    tip.style.left = `${Math.max(0, Math.min(x + 14, plot.clientWidth - tip.offsetWidth))}px`;
    tip.style.top = `${Math.max(0, y + 14 + tip.offsetHeight > plot.clientHeight ? y - 14 - tip.offsetHeight : y + 14)}px`;
  };
  const nearest = (x, y, among) => among.reduce((best, point) => {
    const [px, py] = place(point), distance = Math.hypot(px - x, py - y);
    return distance < best[1] ? [point, distance] : best;
  }, [null, Infinity]);
  const under = (event) => {
    const box = plot.getBoundingClientRect();
    const [point, distance] = nearest(event.clientX - box.left, event.clientY - box.top, visible());
    return distance < 16 ? point : null;
  };
  plot.addEventListener("pointermove", (event) => select(under(event)));
  plot.addEventListener("pointerleave", () => select(null));
  const enlarge = (point) => { if (point) show(describe(point), point[1], [point[0]]); };
  plot.addEventListener("click", (event) => enlarge(under(event)));
  const directions = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
  plot.addEventListener("keydown", (event) => {
    if (event.key === "Enter") enlarge(current);
    const direction = directions[event.key];
    if (!direction) return;
    event.preventDefault();
    const points = visible();
    if (!points.length) return;
    const [x, y] = current ? place(current) : [plot.clientWidth / 2, plot.clientHeight / 2];
    const ahead = points.filter((point) => {
      const [px, py] = place(point), along = (px - x) * direction[0] + (py - y) * direction[1];
      return point !== current && along > 0 && along >= Math.abs((px - x) * direction[1]) + Math.abs((py - y) * direction[0]);
    });
    const [point] = nearest(x, y, current ? ahead : points);
    if (point) { select(point); said.textContent = describe(point); }
  });
  const redraw = () => { select(null); draw(); };
  if (data.classes.length > most) colourBy.value = "right";
  for (const control of [colourBy, filter]) control.addEventListener("change", redraw);
  new ResizeObserver(redraw).observe(plot);
  draw();
})();
