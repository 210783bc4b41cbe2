"use strict";
const MOST = 200;  // photos on the page: each keeps its pixels in the browser
const find = (name) => document.getElementById(name);
const cards = find("cards"), status = find("status"), waiting = [];
const colours = new Map(COLOURS.kept.map((kept, label) => [kept.join(), COLOURS.shown[label]]));
let busy = false;

find("files").addEventListener("change", (event) => { add(event.target.files); event.target.value = ""; });
find("strength").addEventListener("input", (event) =>
  document.documentElement.style.setProperty("--strength", event.target.value / 100));
find("clear").addEventListener("click", () => {
  waiting.length = 0;
  for (const image of cards.querySelectorAll("img")) URL.revokeObjectURL(image.src);
  cards.replaceChildren();
  find("tools").hidden = true;
  say("");
  find("files").focus();
});
find("all").addEventListener("click", async () => {
  for (const link of cards.querySelectorAll(".actions:not([hidden]) a")) {
    link.click();
    await new Promise((done) => setTimeout(done, 250));  // browsers drop downloads that come at once
  }
});
for (const kind of ["dragenter", "dragover"]) addEventListener(kind, (event) => {
  event.preventDefault();
  document.body.classList.add("over-page");
});
addEventListener("dragleave", (event) => event.relatedTarget || document.body.classList.remove("over-page"));
addEventListener("drop", (event) => {
  event.preventDefault();
  document.body.classList.remove("over-page");
  add(event.dataTransfer.files);
});

function say(text) { status.textContent = text; }

function add(files) {
  const room = Math.max(0, MOST - cards.children.length), taken = [...files].slice(0, room);
  for (const file of taken) {
    const card = find("card").content.cloneNode(true).firstElementChild;
    const image = card.querySelector("img");
    card.querySelector("h2").textContent = file.name;
    image.alt = `Photo ${file.name}`;
    image.addEventListener("error", () => { image.remove(); card.querySelector(".picture").classList.add("alone"); });
    image.src = URL.createObjectURL(file);
    cards.append(card);
    waiting.push([file, card]);
  }
  find("tools").hidden = !cards.children.length;
  if (taken.length < files.length) say(`This page shows ${MOST} photos; clear it for more, or use tag2mask predict.`);
  work();
}

async function work() {
  if (busy) return;
  busy = true;
  for (let next = waiting.shift(); next; next = waiting.shift()) {
    const [file, card] = next, state = card.querySelector(".state");
    state.textContent = "Working …";
    say(`${waiting.length + 1} of ${cards.children.length} photos to do`);
    try {
      await show(await ask(file), file, card);
    } catch (error) {
      card.classList.add("failed");
      state.textContent = error.message;
    }
  }
  busy = false;
  const failed = cards.querySelectorAll(".failed").length, all = cards.children.length;
  if (all) say(failed ? `${all - failed} of ${all} photos done, ${failed} refused.` : `${all} of ${all} photos done.`);
}

async function ask(file) {
  for (let tries = 0; ; tries++) {
    let answer;
    try {
      answer = await fetch("predict?format=json", { method: "POST", body: file, headers: { "Content-Type": "application/octet-stream" } });
    } catch {
      throw new Error("The server does not answer. Is it still running?");
    }
    if (answer.status === 503 && tries < 20) {
      await new Promise((done) => setTimeout(done, 2000));
      continue;
    }
    const found = await answer.json().catch(() => ({}));
    if (!answer.ok) throw new Error(typeof found.detail === "string" ? found.detail : `The server answered ${answer.status}.`);
    return found;
  }
}

async function show(found, file, card) {
  const mask = new Image(), canvas = card.querySelector("canvas"), legend = card.querySelector(".legend");
  mask.src = found.png;
  await mask.decode();
  canvas.width = found.width;
  canvas.height = found.height;
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.drawImage(mask, 0, 0);
  const pixels = context.getImageData(0, 0, found.width, found.height), data = pixels.data;
  for (let at = 0; at < data.length; at += 4) {
    if (data[at] || data[at + 1] || data[at + 2]) data.set(colours.get(`${data[at]},${data[at + 1]},${data[at + 2]}`), at);
    else data[at + 3] = 0;
  }
  context.putImageData(pixels, 0, 0);
  canvas.hidden = false;
  for (const one of found.classes) {
    const row = document.createElement("li"), swatch = document.createElement("span"), more = document.createElement("small");
    swatch.className = "swatch";
    swatch.style.background = `rgb(${COLOURS.shown[one.label]})`;
    more.textContent = ` ${(100 * one.share).toFixed(1)}% of the photo, probability ${one.score.toFixed(2)}`;
    row.append(swatch, one.name, more);
    legend.append(row);
  }
  card.querySelector(".state").textContent = found.classes.length ? "" : "Background only";
  card.querySelector(".state").hidden = found.classes.length > 0;
  const actions = card.querySelector(".actions"), link = actions.firstElementChild;
  link.href = found.png;
  link.download = `${file.name.replace(/\.[^.]+$/, "")}.png`;
  link.setAttribute("aria-label", `Download the mask of ${file.name}`);
  actions.hidden = false;
}
