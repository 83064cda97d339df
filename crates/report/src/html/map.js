// The rows of a run of ordinary size. They are built once; filters hide and dim.

const seen = (kernel, row) => data.kernels[kernel].results[row];
const rawOf = seen;
const ready = (_, then) => then();
const later = (_, then) => then();

function built() {
  areas.forEach((made) => made.title.append(...data.kernels.map((_, k) => sum(made, k))));
}

function refolded() {}

function line(row, body) {
  const box = rowBox(row);
  data.kernels.forEach((_, k) => box.append(field(k, row)));
  body.append(box);
  return { row, box, words: words(row) };
}

function show({ box }, asked, fits) {
  let hit = false;
  for (const k of asked ? view.kernels : []) {
    const good = fits(k);
    hit ||= good;
    box.children[k + 1].classList.toggle("off", !good);
  }
  if (box.hidden === hit) box.hidden = !hit;
  return hit;
}

function filtered() {
  rove(visible()[0]);
}

// Failures by their messages.
function stories() {
  const all = new Map();
  data.kernels.forEach((_, k) => data.cells.forEach((_, row) => {
    const it = result(k, row);
    if (!it || !BAD.has(it.standing)) return;
    const key = `${it.standing} ${it.message}`;
    if (!all.has(key)) all.set(key, { standing: it.standing, message: it.message, count: 0, kernels: [], first: [k, row] });
    const story = all.get(key);
    story.count += 1;
    if (story.kernels.at(-1) !== k) story.kernels.push(k);
  }));
  return { told: [...all.values()].slice(0, 60), more: Math.max(0, all.size - 60) };
}

function slow() {
  const all = [];
  data.kernels.forEach((kernel, k) => kernel.results.forEach((raw, row) => raw && raw[3] > 0 && all.push([raw[3], k, row])));
  return all.sort((a, b) => b[0] - a[0]).slice(0, 12);
}

// Only one field of the map can be reached by the tab key; arrow keys select another one.
let current = null;

function visible() {
  const shown = [];
  for (const made of areas) {
    if (made.box.hidden || made.body.hidden) continue;
    for (const { box } of made.rows) if (!box.hidden) shown.push(box);
  }
  return shown;
}

function rove(to, focus = false) {
  const target = to?.classList.contains("row") ? fieldsOf(to)[0] : to;
  if (!target) return;
  if (current) current.tabIndex = -1;
  current = target;
  current.tabIndex = 0;
  if (focus) {
    current.focus({ preventScroll: true });
    current.scrollIntoView({ block: "nearest", inline: "nearest" });
  }
}

const fieldsOf = (box) => [...box.children].filter((it) => it.dataset.at !== undefined && it.offsetParent !== null);

function step(rows, columns) {
  const shown = visible(), at = shown.indexOf(current.parentElement);
  if (rows) {
    const target = shown[Math.min(Math.max(at + rows, 0), shown.length - 1)];
    const same = target?.children[[...current.parentElement.children].indexOf(current)];
    rove(same?.dataset.at !== undefined ? same : target, true);
    return;
  }
  const fields = fieldsOf(current.parentElement);
  rove(fields[Math.min(Math.max(fields.indexOf(current) + columns, 0), fields.length - 1)], true);
}

function openField(box) {
  if (box?.dataset.at === undefined) return;
  rove(box);
  open(...box.dataset.at.split(" ").map(Number));
}

// The next field that the filters show, row by row.
function turn(by) {
  const only = data.kernels.findIndex((kernel) => kernel.id === $("f-kernel").value);
  const wanted = (it) => it.dataset.at && !it.classList.contains("off") && (only < 0 || it.classList.contains(`k${only}`));
  const fields = visible().flatMap((box) => [...box.children].filter(wanted));
  const at = fields.findIndex((it) => it.dataset.at === opened.join(" "));
  openField(fields[(at + by + fields.length) % fields.length]);
}

const refocus = () => current?.isConnected && rove(current, true);
