"use strict";
// The page itself: what its controls ask of the workers, and how their answers look.

const $ = id => document.getElementById(id);
const PALETTE = ["#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#F0E442", "#777777"]; // Okabe, Ito
const COLOURS = ["red", "green", "blue"];
const SWATCHES = {white: "#ffffff", black: "#1a1a1a", grey: "#8a8a8a", cream: "#f0e6d2", brown: "#8b5a2b", red: "#c83228",
  orange: "#e69632", yellow: "#f5d25a", green: "#5aa046"};
const MOST_CLASSES = 8; // in the table of classes: of more the likeliest

let model, size; // {config, classNames}, and how many pixels wide a picture is
let workers, lookingBack; // two draw and judge; a third looks back, so that drawing never waits for it
let job = 0;
let request = null; // the newest drawing: its settings, when it began, how many rows are missing
let pictures = []; // each {bytes, canvas, mark}
let lookJob = 0, shownLook = 0, lookedAt = null; // what is asked of the worker that looks back, and what is shown of it
let easel = null; // the upper half, bytes (S / 2, S, 3), and where the brush is
let verdict = null; // of the picture judged its number, its bytes, and each label's nats (S, S)

function fail(sentence) {
  $("loading").hidden = true;
  $("trouble").textContent = sentence;
  $("trouble").hidden = false;
  $("all").hidden = true;
}

/** The numbers typed into these fields; null for one that is out of range, of which a sentence says so. */
function typed(where, ...ids) {
  const wrong = ids.map($).filter(field => !field.checkValidity());
  for (const id of ids) $(id).setAttribute("aria-invalid", wrong.includes($(id)));
  const said = wrong.map(({labels: [label], min, max}) => `${label.textContent.trim()}: a whole number from ${min} to ${max}.`)
    .join(" ");
  if ($(where).textContent !== said) $(where).textContent = said; // so that it is read out once
  return ids.map(id => (wrong.includes($(id)) ? null : $(id).valueAsNumber));
}

/** Greys a button out. It can still have the focus, which would otherwise be lost. */
const enable = (on, ...ids) => ids.forEach(id => $(id).setAttribute("aria-disabled", String(!on)));

const percent = p => (p >= 0.0005 ? `${(100 * p).toFixed(p < 0.9995 ? 1 : 0)}\u00a0%` : "below 0.05\u00a0%");
const bits = nats => -nats / Math.LN2;
const sum = values => values.reduce((total, value) => total + value, 0);

function element(name, properties = {}, ...children) {
  const made = Object.assign(document.createElement(name), properties);
  made.append(...children);
  return made;
}

/** Paints bytes (h, S, 3) into a canvas, from row `top` on. */
function paint(canvas, bytes, top = 0) {
  const height = bytes.length / 3 / size, data = new ImageData(size, height);
  for (let n = 0; n < size * height; n++) {
    data.data.set(bytes.subarray(3 * n, 3 * n + 3), 4 * n);
    data.data[4 * n + 3] = 255;
  }
  canvas.getContext("2d").putImageData(data, 0, top);
}

/** Paints a picture in pale grey under a colour of strength `strength(pixel)`, -1 ... 1: purple, or orange below 0. */
function paintOver(canvas, bytes, strength) {
  canvas.width = canvas.height = size;
  const painted = new Uint8Array(bytes.length), [purple, orange] = [[84, 39, 136], [230, 97, 1]];
  for (let n = 0; n < size * size; n++) {
    const grey = 191 + (bytes[3 * n] + bytes[3 * n + 1] + bytes[3 * n + 2]) / 12, value = clamp(strength(n), -1, 1);
    const share = Math.sqrt(Math.abs(value)), colour = value > 0 ? purple : orange;
    for (let c = 0; c < 3; c++) painted[3 * n + c] = (1 - share) * grey + share * colour[c];
  }
  paint(canvas, painted);
}

/** Lays a ring around a pixel of the picture that it lies over. */
function frame(ring, row, column) {
  const style = {left: column, top: row, width: 1, height: 1};
  for (const [name, pixels] of Object.entries(style)) ring.style[name] = `${100 * pixels / size}%`;
}

// Drawing

/** Begins anew with the settings of now; what was under way is given up. */
function draw() {
  const label = $("class").valueAsNumber, temperature = $("temperature").valueAsNumber;
  const seed = typed("seed-wrong", "seed")[0] ?? request.seed; // until what is typed is a seed, the last one
  const name = model.classNames[label], count = $("count").valueAsNumber;
  $("class-name").textContent = name;
  $("class").setAttribute("aria-valuetext", name);
  $("temperature-value").textContent = temperature.toFixed(2);
  $("count-value").textContent = count;
  const prefix = $("begin").checked ? easel.bytes : new Uint8Array();
  job += 1;
  request = {label, name, temperature, seed, count, began: performance.now(), first: null, missing: count * size};
  verdict = null;
  $("judgement").hidden = true;
  $("judge-status").textContent = $("judge-progress").textContent = "";
  enable(false, "save");
  $("look").classList.add("stale");
  $("easel").getContext("2d").clearRect(0, size / 2, size, size / 2);
  say("");
  layOut(count);
  showPlace();
  pictures.forEach(({canvas}, n) => {
    canvas.getContext("2d").clearRect(0, 0, size, size);
    canvas.setAttribute("aria-label", `Picture ${n + 1} of ${count}: ${name}`);
  });
  workers.forEach((worker, w) => {
    const own = pictures.map((_, n) => n).filter(n => n % 2 === w);
    worker.postMessage({kind: "draw", job, label, temperature, seed, prefix, pictures: own});
  });
}

const say = text => { $("status").textContent = text; };

/** Gives the page as many empty pictures as are asked for. */
function layOut(count) {
  if (pictures.length === count) return;
  $("pictures").style.setProperty("--columns", Math.ceil(Math.sqrt(count)));
  pictures = Array.from({length: count}, (_, n) => {
    const canvas = element("canvas", {width: size, height: size}), mark = element("i", {hidden: true});
    canvas.setAttribute("role", "img");
    canvas.addEventListener("click", event => choose(n, event));
    return {canvas, mark, bytes: new Uint8Array(3 * size * size)};
  });
  $("pictures").replaceChildren(...pictures.map(({canvas, mark}) => element("div", {className: "marked"}, canvas, mark)));
  $("picture").max = count;
  if ($("picture").valueAsNumber > count) $("picture").value = 1;
}

function onRow({picture, row, bytes}) {
  const shown = pictures[picture];
  shown.bytes.set(bytes, 3 * size * row);
  paint(shown.canvas, bytes, row);
  if (picture === 0 && row >= size / 2 && $("begin").checked) paint($("easel"), bytes, row);
  request.first ??= performance.now() - request.began;
  request.missing -= 1;
  if (request.missing) return;
  request.took = performance.now() - request.began;
  say(`${request.count} ${request.count === 1 ? "picture" : "pictures"} of class ${request.name} in ` +
    `${(request.took / 1000).toFixed(2)} seconds.`);
  enable(true, "save");
  look();
}

/** All pictures in one PNG, eight pixels wide for each of theirs. */
function save() {
  if (request.missing) return;
  const zoom = 8, gap = zoom, columns = Math.ceil(Math.sqrt(pictures.length)), tile = size * zoom + gap;
  const rows = Math.ceil(pictures.length / columns);
  const sheet = element("canvas", {width: columns * tile + gap, height: rows * tile + gap});
  const pen = sheet.getContext("2d");
  pen.imageSmoothingEnabled = false;
  pen.fillStyle = "white";
  pen.fillRect(0, 0, sheet.width, sheet.height);
  pictures.forEach(({canvas}, n) => {
    pen.drawImage(canvas, gap + (n % columns) * tile, gap + Math.floor(n / columns) * tile, tile - gap, tile - gap);
  });
  const name = request.name.replace(/[^\p{L}\p{N}]+/gu, "-");
  sheet.toBlob(blob => {
    const link = element("a", {href: URL.createObjectURL(blob), download: `${name}-seed-${request.seed}.png`});
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
  });
}

// Looking back

function choose(n, {offsetX, offsetY, target}) {
  $("picture").value = n + 1;
  $("row").value = clamp(Math.floor(size * offsetY / target.clientHeight), 0, size - 1) + 1;
  $("column").value = clamp(Math.floor(size * offsetX / target.clientWidth), 0, size - 1) + 1;
  look();
}

/** The picture, row and column chosen, from 0; null while one of them is not a number in range. */
function place() {
  const numbers = typed("place-wrong", "picture", "row", "column");
  return numbers.includes(null) ? null : numbers.map(n => n - 1);
}

/** Marks the pixel chosen, and -> it, as `place` does. */
function showPlace() {
  const chosen = place();
  enable(chosen && !request.missing, "judge", "copy");
  $("judged").textContent = $("picture").value;
  pictures.forEach(({mark}, n) => {
    mark.hidden = !chosen || chosen[0] !== n;
    if (chosen) frame(mark, chosen[1], chosen[2]);
  });
  return chosen;
}

function look() {
  const chosen = showPlace();
  if (!chosen || request.missing) return;
  const [picture, row, column] = chosen, {bytes} = pictures[picture];
  lookJob += 1;
  lookedAt = {picture, bytes: bytes.slice(), row, column, given: $("begin").checked && row < size / 2};
  $("look").classList.add("stale");
  lookingBack.postMessage({kind: "look", job: lookJob, label: request.label, bytes, row, column});
}

function onLook({job: answered, params, seen}) {
  if (answered !== lookJob) return;
  const {picture, bytes, row, column, given} = lookedAt, here = row * size + column;
  const pixel = bytes.subarray(3 * here, 3 * here + 3);
  const most = Math.max(...seen), strongest = seen.indexOf(most);
  const canvas = $("seen");
  const seenBytes = bytes.map((byte, n) => (n < 3 * here ? byte : 128)); // what comes later was not there
  paintOver(canvas, seenBytes, n => (n < here && most > 0 ? seen[n] / most : 0));
  frame($("seen-mark"), row, column);
  const counted = seen.filter(slope => slope > most / 100).length;
  const [r, c] = [Math.floor(strongest / size), strongest % size];
  const which = `Picture ${picture + 1}, row ${row + 1}, column ${column + 1}`;
  $("seen-caption").textContent = most === 0 ? `${which}: there was nothing to look at, it knew the class alone.` :
    `${which}: what it looked at. The darker a pixel, the more a change in it would have changed the brightness ` +
    `expected here: most in row ${r + 1}, column ${c + 1}, and at least a hundredth of that in ${counted} ` +
    `${counted === 1 ? "pixel" : "pixels"}. The plain grey area came later.`;
  canvas.setAttribute("aria-label", `Pixels that row ${row + 1}, column ${column + 1} looked at`);
  const parts = COLOURS.map((_, colour) => expectations(params, pixel, colour));
  $("bars").replaceChildren(...parts.map((components, colour) => barsOf(components, pixel[colour], colour, given)));
  tabulate(parts);
  shownLook = answered;
  $("look").classList.toggle("stale", request.missing > 0);
  if ($("place").contains(document.activeElement)) { // of other changes a screen reader has heard
    $("look-status").textContent = `${which}: ${COLOURS.map((name, n) => `${name} ${pixel[n]}`).join(", ")}`;
  }
}

/** 256 bars, each the shares of the components on top of each other; what was drawn, or given, is marked below. */
function barsOf(components, drawn, colour, given) {
  const totals = Float64Array.from({length: 256}, (_, byte) => sum(components.map(({masses}) => masses[byte])));
  const most = Math.max(...totals), likeliest = totals.indexOf(most);
  const canvas = element("canvas", {width: 256 * 4, height: 160}), pen = canvas.getContext("2d");
  const ink = getComputedStyle(document.body).color;
  for (let byte = 0; byte < 256; byte++) {
    let bottom = canvas.height;
    components.forEach(({masses}, n) => {
      const height = 150 * masses[byte] / most;
      pen.fillStyle = PALETTE[n % PALETTE.length];
      pen.fillRect(4 * byte, bottom - height, 4, height);
      bottom -= height;
    });
    pen.fillStyle = ink; // an edge that is seen whatever the shares' colours
    if (totals[byte] > most / 500) pen.fillRect(4 * byte, bottom - 3, 4, 3);
  }
  const said = `${COLOURS[colour]} ${drawn} was ${given ? "given" : "drawn"}: probability ${percent(totals[drawn])}, ` +
    `${bits(Math.log(totals[drawn])).toFixed(1)} bits; likeliest ${likeliest}, ${percent(most)}`;
  canvas.setAttribute("role", "img");
  canvas.setAttribute("aria-label", `Probabilities of the 256 values of ${COLOURS[colour]}; ${said}`);
  const arrow = element("span", {textContent: "▲", className: "arrow"});
  arrow.style.left = `${100 * (drawn + 0.5) / 256}%`;
  const axis = element("div", {className: "axis"}, ...["0", "255"].map(end => element("span", {textContent: end})), arrow);
  return element("figure", {}, element("figcaption", {textContent: said}), canvas, axis);
}

function tabulate(parts) {
  const [first] = parts, order = first.map((_, n) => n).sort((a, b) => first[b].weight - first[a].weight);
  const byte = x => ((x + 1) * 127.5).toFixed(0);
  $("components").replaceChildren(...order.slice(0, 10).map(n => {
    const swatch = element("i");
    swatch.style.background = PALETTE[n % PALETTE.length];
    const cells = parts.map(({[n]: {mean, scale}}) =>
      element("td", {textContent: `${byte(mean)} ± ${(127.5 * scale).toFixed(1)}`}));
    const head = element("th", {scope: "row"}, swatch, String(n + 1));
    return element("tr", {}, head, element("td", {textContent: percent(first[n].weight)}), ...cells);
  }));
}

// Painting the upper half

/** Buttons for colours; the one of the brush's colour is pressed. */
function layOutSwatches() {
  $("swatches").replaceChildren(...Object.entries(SWATCHES).map(([name, colour]) => {
    const button = element("button", {type: "button", title: name});
    button.style.background = colour;
    button.addEventListener("click", () => {
      $("colour").value = colour;
      showColour();
    });
    return button;
  }));
  const showColour = () => {
    const buttons = [...$("swatches").children], colours = Object.values(SWATCHES);
    buttons.forEach((button, n) => button.setAttribute("aria-pressed", colours[n] === $("colour").value));
  };
  $("colour").addEventListener("input", showColour);
  showColour();
}

function openEasel() {
  easel = {bytes: new Uint8Array(3 * size * size / 2), row: 0, column: 0};
  layOutSwatches();
  const canvas = $("easel");
  [canvas.width, canvas.height] = [size, size]; // its lower half shows how the first picture goes on
  let last = null; // where the pointer was, while it is down
  const at = ({offsetX, offsetY}) =>
    [offsetY / canvas.clientHeight, offsetX / canvas.clientWidth].map(share => Math.floor(size * share));
  canvas.addEventListener("pointerdown", event => {
    if (event.button || !event.isPrimary || at(event)[0] >= size / 2) return;
    canvas.setPointerCapture(event.pointerId);
    last = at(event);
    dab(...last);
  });
  canvas.addEventListener("pointermove", event => {
    if (!event.buttons) last = null; // it was let go where nobody told the page
    if (!last) return;
    const now = at(event), steps = Math.max(1, ...now.map((to, n) => Math.abs(to - last[n])));
    for (let s = 1; s <= steps; s++) dab(...now.map((to, n) => Math.round(last[n] + (to - last[n]) * s / steps)));
    last = now;
  });
  for (const name of ["pointerup", "pointercancel"]) {
    canvas.addEventListener(name, () => {
      if (last) finishStroke();
      last = null;
    });
  }
  const moves = {ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1]};
  canvas.addEventListener("keydown", event => {
    const [down, right] = moves[event.key] || [0, 0];
    const paints = event.key === " " || event.key === "Enter";
    if (!down && !right && !paints) return;
    event.preventDefault();
    easel.row = clamp(easel.row + down, 0, size / 2 - 1);
    easel.column = clamp(easel.column + right, 0, size - 1);
    if (paints) {
      dab(easel.row, easel.column);
      finishStroke();
    }
    showEasel(true);
    $("easel-place").textContent = `row ${easel.row + 1}, column ${easel.column + 1}${paints ? ", painted" : ""}`;
  });
  canvas.addEventListener("blur", () => showEasel(false));
  canvas.addEventListener("focus", () => showEasel(canvas.matches(":focus-visible")));
  clearEasel();
}

/** A square of the chosen colour, as wide as the brush. */
function dab(row, column) {
  const width = typed("brush-wrong", "brush")[0] ?? 1;
  const colour = [1, 3, 5].map(at => parseInt($("colour").value.slice(at, at + 2), 16));
  const [top, left] = [row, column].map(middle => middle - Math.floor((width - 1) / 2));
  for (let i = Math.max(top, 0); i < Math.min(top + width, size / 2); i++) {
    for (let j = Math.max(left, 0); j < Math.min(left + width, size); j++) easel.bytes.set(colour, 3 * (i * size + j));
  }
  showEasel(false);
}

/** The upper half, and on it the keys' brush. */
function showEasel(withBrush) {
  paint($("easel"), easel.bytes);
  $("brush-mark").hidden = !withBrush;
  frame($("brush-mark"), easel.row, easel.column);
}

function finishStroke() {
  $("begin").checked = true;
  draw();
}

function clearEasel() {
  for (let n = 0; n < easel.bytes.length; n += 3) easel.bytes.set([240, 230, 210], n);
  showEasel(false);
  if ($("begin").checked) draw();
}

function copyUpperHalf() {
  const chosen = place();
  if (!chosen || request.missing) return;
  easel.bytes.set(pictures[chosen[0]].bytes.subarray(0, easel.bytes.length));
  showEasel(false);
  finishStroke();
}

// Judging

function judge() {
  const chosen = place();
  if (!chosen || request.missing) return;
  const {bytes} = pictures[chosen[0]], labels = model.classNames.map((_, label) => label);
  job += 1;
  verdict = {number: chosen[0] + 1, bytes: bytes.slice(), nats: []};
  $("judge-status").textContent = "";
  workers.forEach((worker, w) => {
    worker.postMessage({kind: "judge", job, bytes, labels: labels.filter(label => label % 2 === w)});
  });
}

function onJudged({label, nats}) {
  verdict.nats[label] = nats;
  const done = Object.keys(verdict.nats).length, all = model.classNames.length;
  $("judge-progress").textContent = done < all ? `${done} of ${all} classes` : "";
  if (done === all) showVerdict();
}

function showVerdict() {
  const totals = verdict.nats.map(sum), evidenceOfAll = logSumExp(totals);
  const order = totals.map((_, label) => label).sort((a, b) => totals[b] - totals[a]);
  $("posterior").replaceChildren(...order.slice(0, MOST_CLASSES).map(label => {
    const p = Math.exp(totals[label] - evidenceOfAll);
    const name = element("th", {scope: "row"}, element("bdi", {textContent: model.classNames[label]}));
    const bar = element("meter", {value: p, max: 1});
    bar.setAttribute("aria-hidden", "true"); // it repeats the number
    return element("tr", {}, name, element("td", {}, percent(p), bar),
      element("td", {textContent: (bits(totals[label]) / (3 * size * size)).toFixed(3)}));
  }));
  $("judge-status").textContent = `Picture ${verdict.number} is taken for class ${model.classNames[order[0]]}.`;
  for (const [id, label] of [["in-favour", order[0]], ["against", order[1] ?? order[0]]]) {
    $(id).replaceChildren(...model.classNames.map((name, n) => element("option", {textContent: name, value: n})));
    $(id).value = label;
  }
  $("judgement").hidden = false;
  showEvidence();
}

/** Nats for one class and against another, each pixel as the mean of the 3x3 around it: single ones are too noisy. */
function showEvidence() {
  const [label, against] = ["in-favour", "against"].map(id => +$(id).value), names = model.classNames;
  const nats = verdict.nats[label].map((value, n) => value - verdict.nats[against][n]);
  const means = nats.map((_, n) => {
    const [row, column] = [Math.floor(n / size), n % size], around = [];
    for (let i = Math.max(row - 1, 0); i <= Math.min(row + 1, size - 1); i++) {
      for (let j = Math.max(column - 1, 0); j <= Math.min(column + 1, size - 1); j++) around.push(nats[i * size + j]);
    }
    return sum(around) / around.length;
  });
  const sorted = means.map(Math.abs).sort(), limit = Math.max(sorted[Math.floor(0.99 * (sorted.length - 1))], 0.01);
  paintOver($("evidence"), verdict.bytes, n => means[n] / limit);
  const total = sum(nats);
  $("evidence").setAttribute("aria-label", `Evidence for ${names[label]} and against ${names[against]}`);
  $("evidence-caption").textContent = `Purple speaks for ${names[label]}, orange for ${names[against]}; each pixel is the ` +
    `mean of the 3×3 around it, full colour ${limit.toFixed(2)} nats (1 nat is 1.44 bits). In all ` +
    `${total < 0 ? "−" : "+"}${Math.abs(total).toFixed(1)} nats.`;
}

// The start

function receive({data}) {
  if (data.job !== job) return;
  if (data.nats) onJudged(data);
  else onRow(data);
}

function openWorkers(bytes) {
  const source = [...document.querySelectorAll("script.in-worker")].map(script => script.textContent).join("\n");
  const address = URL.createObjectURL(new Blob([source], {type: "text/javascript"}));
  const made = [0, 1, 2].map(() => new Worker(address));
  for (const worker of made) {
    worker.onerror = event => fail(`Drawing failed in this browser (${event.message || "its workers do not start"}).`);
    worker.postMessage({kind: "weights", job: 0, bytes});
  }
  workers = made.slice(0, 2);
  for (const worker of workers) worker.onmessage = receive;
  lookingBack = made[2];
  lookingBack.onmessage = ({data}) => onLook(data);
}

function showOffline() {
  $("offline").hidden = navigator.onLine;
}

function open() {
  showOffline();
  for (const name of ["online", "offline"]) addEventListener(name, showOffline);
  let bytes;
  try {
    if (!$("weights")) throw new Error("they are missing");
    const {textContent, dataset} = $("weights");
    bytes = decodeWeights(textContent.trim(), +dataset.bytes, +dataset.crc32);
    model = readWeights(bytes);
  } catch (error) {
    return fail(`The weights in this page are damaged (${error.message}). Download the page again.`);
  }
  size = model.config.image_size;
  try {
    openWorkers(bytes);
  } catch (error) {
    return fail(`This browser runs no workers, in which the page draws (${error.message}). A current one does.`);
  }
  $("class").max = model.classNames.length - 1;
  $("class").disabled = model.classNames.length === 1;
  if (model.classNames.join("").length < 40) { // names that find room below the slider
    $("class-names").replaceChildren(...model.classNames.map(name => element("span", {textContent: name})));
  }
  for (const id of ["row", "column"]) {
    $(id).max = size;
    $(id).value = Math.floor(size * 0.6);
  }
  $("facts").textContent = `${model.classNames.length} classes, pictures of ${size}×${size} pixels.`;
  $("loading").hidden = true;
  $("all").hidden = false;
  $("judging").hidden = model.classNames.length === 1;
  openEasel();

  for (const id of ["class", "temperature", "count", "seed"]) $(id).addEventListener("input", draw);
  for (const id of ["picture", "row", "column"]) $(id).addEventListener("input", look);
  for (const id of ["settings", "place"]) $(id).addEventListener("submit", event => event.preventDefault());
  for (const id of ["in-favour", "against"]) $(id).addEventListener("change", showEvidence);
  $("begin").addEventListener("change", draw);
  for (const [id, act] of [["save", save], ["copy", copyUpperHalf], ["clear", clearEasel], ["judge", judge]]) {
    $(id).addEventListener("click", act);
  }
  $("next-seed").addEventListener("click", () => {
    $("seed").value = (request.seed + 1) % 2 ** 53;
    draw();
  });
  draw();
}

addEventListener("DOMContentLoaded", open);
