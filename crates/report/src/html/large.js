// The rows of a run that is too large for one page. How every cell ended is in the page, a letter each; the rest is loaded
// when a field is opened. Only the rows and columns in sight exist as elements.

const { token, directory, letters, rows: partRows } = data.large;
// Rows and columns that are drawn beyond those in sight.
const BEYOND = { rows: 12, columns: 3 };
// Parts that are kept, about a megabyte each.
const KEPT_PARTS = 24;
const SEEN = [];
[...letters].forEach((letter, at) => (SEEN[letter.charCodeAt(0)] = [at % STANDINGS.length, Math.floor(at / STANDINGS.length)]));
const seen = (kernel, row) => SEEN[data.kernels[kernel].grid.charCodeAt(row)];
const stories = () => ({ told: data.large.stories.map((it) => ({ ...it, standing: STANDINGS[it.standing] })), more: data.large.more });
const slow = () => data.large.slowest;

// What is far below is made when it comes near.
function later(id, then) {
  const near = new IntersectionObserver((entries) => {
    if (!entries.some((it) => it.isIntersecting)) return;
    near.disconnect();
    then();
    reachable();
  }, { rootMargin: "800px" });
  near.observe($(id));
}

const parts = new Map(), awaited = new Map();
const partOf = (row) => Math.floor(row / partRows);
const rawOf = (kernel, row) => parts.get(partOf(row))?.results[kernel][row % partRows];

// Called by the script of a part, with the token of its run.
globalThis.netkitLabPart = (its, number, part) => {
  if (its !== token) return;
  for (const oldest of [...parts.keys()].slice(0, Math.max(0, parts.size + 1 - KEPT_PARTS))) parts.delete(oldest);
  parts.set(number, part);
};

function load(number) {
  if (parts.has(number)) return Promise.resolve();
  if (!awaited.has(number)) {
    awaited.set(number, new Promise((done) => {
      const script = make("script", undefined, { src: `${directory}/${number}.js`, nonce: token });
      const over = () => { script.remove(); awaited.delete(number); done(); };
      script.addEventListener("load", over);
      script.addEventListener("error", over);
      document.head.append(script);
    }));
  }
  return awaited.get(number);
}

function ready(row, then) {
  const number = partOf(row);
  const use = () => { strings = parts.get(number).strings; then(); };
  if (parts.has(number)) return void use();
  for (const id of ["d-what", "d-facts", "d-evidence", "d-repro"]) $(id).replaceChildren();
  $("d-title").textContent = data.cells[row].name;
  $("d-message").textContent = `Loading ${directory}/${number}.js …`;
  if (!$("detail").open) $("detail").showModal();
  load(number).then(() => {
    if (parts.has(number)) return use();
    $("d-message").textContent = `${directory}/${number}.js is not there, or of another run: copy ${directory} together with this page, or write both again with \`lab report\`.`;
  });
}

const line = (row) => ({ row, words: words(row) });

function show(it, asked, fits) {
  return asked && view.kernels.some(fits);
}

let current = null;
// The rows that can be scrolled to, from top to bottom, and where each is among them.
let order = [], placeOf = new Map();
let columnsInSight = [0, 0];

function built() {
  $("map").classList.add("large");
  $("map").addEventListener("scroll", soon, { passive: true });
  window.addEventListener("resize", soon);
}

let scheduled = false;
function soon() {
  if (scheduled) return;
  scheduled = true;
  requestAnimationFrame(() => { scheduled = false; draw(); });
}

function filtered() {
  for (const made of areas) {
    made.body.style.height = `calc(var(--row) * ${made.shown.length})`;
    clear(made);
  }
  refolded();
  if (!current || !placeOf.has(current[1]) || !view.kernels.includes(current[0])) current = null;
}

function refolded() {
  if (!areas.length || !areas[0].shown) return;
  order = areas.flatMap((made) => (made.box.hidden || made.body.hidden ? [] : made.shown.map(({ row }) => row)));
  placeOf = new Map(order.map((row, at) => [row, at]));
  draw();
}

function clear(made) {
  made.drawn = new Map();
  made.body.replaceChildren();
  made.title.replaceChildren(made.title.firstChild);
}

// The height of a row and the width of a column, pixels.
const rowHeight = () => parseFloat(getComputedStyle($("map")).getPropertyValue("--row")) * parseFloat(getComputedStyle(document.documentElement).fontSize);
const column = () => document.querySelector(`#map .head > .k${view.kernels[0] ?? 0}`);

function draw() {
  const map = $("map"), sight = map.getBoundingClientRect(), height = rowHeight();
  const first = column(), width = first?.offsetWidth || 1;
  const left = Math.floor((map.scrollLeft - first.offsetLeft) / width) - BEYOND.columns;
  const across = [Math.max(0, left), Math.min(view.kernels.length, left + Math.ceil(map.clientWidth / width) + 2 * BEYOND.columns + 1)];
  if (across.join() !== columnsInSight.join()) areas.forEach(clear);
  columnsInSight = across;
  const kernels = view.kernels.slice(...across);
  // All are measured before anything is changed: after a change, the browser would have to lay out everything again.
  const tops = areas.map((made) => made.body.getBoundingClientRect().top);
  areas.forEach((made, number) => {
    if (made.box.hidden) return;
    if (made.title.childElementCount === 1) made.title.append(...kernels.map((k, at) => placed(cached(made, k), across[0] + at)));
    const top = tops[number];
    const from = made.body.hidden ? 0 : Math.max(0, Math.floor((sight.top - top) / height) - BEYOND.rows);
    const to = made.body.hidden ? 0 : Math.min(made.shown.length, Math.ceil((sight.bottom - top) / height) + BEYOND.rows);
    for (const [at, box] of made.drawn) if (at < from || at >= to) { box.remove(); made.drawn.delete(at); }
    for (let at = from; at < to; at++) if (!made.drawn.has(at)) made.drawn.set(at, drawRow(made, at, kernels));
  });
  stop();
}

// Sums do not depend on filters.
function cached(made, k) {
  made.sums ??= new Map();
  if (!made.sums.has(k)) made.sums.set(k, sum(made, k));
  return made.sums.get(k);
}

function placed(box, at) {
  box.style.setProperty("--at", at);
  return box;
}

function drawRow(made, at, kernels) {
  const { row } = made.shown[at], box = rowBox(row);
  box.setAttribute("aria-rowindex", row + 1);
  box.style.top = `calc(var(--row) * ${at})`;
  kernels.forEach((k, place) => {
    const one = field(k, row);
    if (one.dataset.at === undefined) return;
    one.classList.toggle("off", !fits(k, row));
    box.append(placed(one, columnsInSight[0] + place));
  });
  made.body.append(box);
  return box;
}

const fits = (k, row) => matches(seen(k, row), view.outcome, view.attach, data.cells[row].attach);
const boxOf = (at) => at && document.querySelector(`#map .field[data-at="${at[0]} ${at[1]}"]`);

// Only one field of the map can be reached by the tab key; arrow keys select another one.
function stop() {
  document.querySelectorAll("#map .field[tabindex='0']").forEach((it) => (it.tabIndex = -1));
  const box = boxOf(current) ?? document.querySelector("#map .field[data-at]");
  if (box) box.tabIndex = 0;
}

// Scrolls to a field, which then exists, and selects it.
function go(kernel, row, focus = true) {
  const map = $("map"), made = areas.find((it) => it.name === data.cells[row].area), height = rowHeight();
  const place = made.shown.findIndex((it) => it.row === row);
  if (place < 0 || made.body.hidden) return;
  current = [kernel, row];
  const sight = map.getBoundingClientRect(), top = made.body.getBoundingClientRect().top + place * height;
  const above = document.querySelector("#map .head").offsetHeight + made.title.offsetHeight;
  if (top < sight.top + above) map.scrollTop += top - sight.top - above;
  else if (top + height > sight.bottom - 16) map.scrollTop += top + height - sight.bottom + 16;
  const first = column(), x = first.offsetLeft + view.kernels.indexOf(kernel) * first.offsetWidth - map.scrollLeft;
  if (x < first.offsetLeft) map.scrollLeft += x - first.offsetLeft;
  else if (x + first.offsetWidth > map.clientWidth) map.scrollLeft += x + first.offsetWidth - map.clientWidth;
  draw();
  if (focus) boxOf(current)?.focus({ preventScroll: true });
}

const refocus = () => current && go(...current);

function step(rows, columns) {
  const [kernel, row] = document.activeElement?.dataset?.at?.split(" ").map(Number) ?? current;
  const limited = (at, all) => Math.min(Math.max(at, 0), all.length - 1);
  if (rows) {
    const target = order[limited(placeOf.get(row) + rows, order)];
    const same = seen(kernel, target) ? kernel : view.kernels.find((k) => seen(k, target));
    if (same !== undefined) go(same, target);
    return;
  }
  const there = view.kernels.filter((k) => seen(k, row));
  go(there[limited(there.indexOf(kernel) + columns, there)], row);
}

function openField(box) {
  if (box?.dataset.at === undefined) return;
  current = box.dataset.at.split(" ").map(Number);
  stop();
  open(...current);
}

// The next field that the filters show, row by row.
function turn(by) {
  const [kernel, row] = opened, width = view.kernels.length, count = order.length * width;
  let at = (placeOf.get(row) ?? 0) * width + Math.max(0, view.kernels.indexOf(kernel));
  for (let tried = 0; tried < count; tried++) {
    at = (at + by + count) % count;
    const next = [view.kernels[at % width], order[Math.floor(at / width)]];
    if (!seen(...next) || !fits(...next)) continue;
    go(...next, false);
    open(...next);
    return;
  }
}
