"use strict";
(() => {
  const UNCERTAIN = 255, AT_ONCE = 24, MANY = 50;
  const { names, colours, kinds, photos, first, look: LOOK } = JSON.parse(document.getElementById("data").textContent);
  const tools = document.getElementById("tools");
  const cards = document.getElementById("cards");
  const more = document.getElementById("more");
  const count = document.getElementById("count");
  const large = document.getElementById("large");
  let found = [], shown = 0, opened = 0, looked = found;

  const element = (tag, properties = {}, ...children) => {
    const made = Object.assign(document.createElement(tag), properties);
    made.append(...children);
    return made;
  };
  const nameOf = (value, kind) => (value !== UNCERTAIN ? names[value] : kind === "truth" ? "not scored" : "uncertain");
  const lowest = (photo) => Math.min(...photo.confidences.map(([, confidence]) => confidence), Infinity);
  const percent = (value) => `${value.toFixed(1)}%`;
  const thousands = (value) => value.toLocaleString("en");
  const chosen = (name) => new FormData(tools).get(name);

  function swatch(value) {
    const made = element("span", { className: value === UNCERTAIN ? "swatch striped" : "swatch" });
    if (value !== UNCERTAIN) made.style.setProperty("--colour", colours[value]);
    return made;
  }

  function tile(photo, mask) {
    const title = mask ? kinds[mask.kind] : "Photo";
    const says = mask && (mask.regions.map(([value, share]) => `${nameOf(value, mask.kind)} ${percent(share)}`).join(", ") || "background only");
    const picture = element("span", { className: "picture" });
    const [width, height] = photo.size;
    picture.style.aspectRatio = `${width} / ${height}`;
    picture.style.setProperty("--fit", Math.min(1, (width / height) / (4 / 3)));
    const image = (source, alt, className) => element("img", { src: source, alt, className, width, height, decoding: "async" });
    picture.append(image(photo.photo, mask ? "" : `Photo ${photo.name}`, mask ? "under" : ""));
    if (mask) {
      picture.title = `${title}: ${says}`;
      picture.append(image(mask.image, `${title} of ${photo.name}: ${says}`, "mask"));
      const places = mask.regions.length ? mask.regions.filter((region) => region.length > 2) : [[0, 100, 50, 96]];
      for (const [value, , x, y] of places) {
        const label = element("span", { className: "label", textContent: value ? nameOf(value) : "background only" });
        label.style.setProperty("--x", x);
        label.style.setProperty("--y", y);
        label.ariaHidden = "true";
        picture.append(label);
      }
    }
    const figure = element("figure", { className: "tile" }, element("span", { className: "frame" }, picture), element("figcaption", {}, title));
    figure.dataset.kind = mask ? mask.kind : "photo";
    return figure;
  }

  const tiles = (photo) => [tile(photo), ...photo.masks.map((mask) => tile(photo, mask))];

  function badges(photo) {
    const badge = (text, warns) => element("span", { className: warns ? "badge warns" : "badge", textContent: text });
    const made = photo.missing.length ? [badge(`tag missing: ${photo.missing.map((label) => nameOf(label)).join(", ")}`, true)] : [];
    for (const [label, confidence] of photo.confidences) {
      if (!photo.missing.includes(label)) made.push(badge(`${nameOf(label)}: confidence ${confidence.toFixed(2)}`, confidence < LOOK));
    }
    if (photo.pixels !== null) {
      const has = (kind) => photo.masks.some((mask) => mask.kind === kind);
      const what = !has("proxy") ? "differs from the truth" : has("prediction") ? "masks disagree" : "uncertain";
      made.push(badge(`${what} ${photo.pixels.toFixed(0)}%`, photo.pixels >= MANY));
    }
    return made;
  }

  const shownIn = (mask) => mask.regions.map(([value]) => value).filter((value) => value !== UNCERTAIN || mask.kind !== "truth");

  function legend(photo) {
    const values = new Set([...photo.tags, ...photo.masks.flatMap(shownIn)]);
    const items = [...values].sort((a, b) => a - b).map((value) => {
      const tagged = photo.tags.includes(value);
      return element("li", { className: tagged ? "tagged" : "" }, swatch(value), nameOf(value));
    });
    return element("ul", { className: "legend" }, ...items);
  }

  function card(photo, place) {
    const open = element("button", { type: "button", textContent: photo.name, title: "Enlarge" });
    const row = element("div", { className: "tile-row" }, ...tiles(photo));
    for (const part of [open, row]) part.addEventListener("click", () => enlarge(place, found));
    return element("article", {}, element("h3", {}, open), element("p", { className: "badges" }, ...badges(photo)), row, legend(photo));
  }

  function addCards() {
    const next = found.slice(shown, shown + AT_ONCE);
    cards.append(...next.map((photo, i) => card(photo, shown + i)));
    shown += next.length;
    more.hidden = shown >= found.length;
    more.textContent = `Show more photos (${thousands(found.length - shown)} left)`;
  }

  function search() {
    const set = chosen("set"), label = Number(chosen("class")), text = chosen("find").toLowerCase(), order = chosen("order");
    const shows = (photo) => photo.tags.includes(label) || photo.masks.some((mask) => shownIn(mask).includes(label));
    found = photos.filter((photo) => (!set || photo.set === set) && (!label || shows(photo))
      && (!chosen("look") || photo.look) && photo.name.toLowerCase().includes(text));
    const compare = (a, b) => (a < b ? -1 : Number(a > b)); // of two infinite values too
    const byName = (a, b) => (a.name < b.name ? -1 : 1);
    found.sort({
      doubt: (a, b) => b.look - a.look || compare(lowest(a), lowest(b)) || byName(a, b),
      sure: (a, b) => a.look - b.look || compare(lowest(b), lowest(a)) || byName(a, b),
      name: byName,
    }[order]);
    const all = photos.filter((photo) => !set || photo.set === set).length;
    count.textContent = found.length ? `${thousands(found.length)} of ${thousands(all)} photos` : "No photo matches.";
    cards.replaceChildren();
    cards.dataset.tiles = 1 + Math.max(0, ...found.map((photo) => photo.masks.length));
    shown = 0;
    addCards();
  }

  function look() {
    const strength = Number(chosen("strength"));
    document.documentElement.style.setProperty("--strength", strength / 100);
    tools.querySelector("output").textContent = `${strength}%`;
    cards.dataset.view = chosen("view");
  }

  const shareOf = (mask, value) => (value === UNCERTAIN && mask.kind === "truth" ? "–"
    : (mask.regions.find((region) => region[0] === value)?.[1] ?? 0).toFixed(1));

  function shares(photo) {
    const values = new Set(photo.masks.flatMap(shownIn));
    const head = element("tr", {}, element("th", { scope: "col" }, "Class, % of pixels"), ...photo.masks.map((mask) => element("th", { scope: "col" }, kinds[mask.kind])));
    const rows = [...values].sort((a, b) => a - b).map((value) => element("tr", {}, element("th", { scope: "row" }, swatch(value), nameOf(value)),
      ...photo.masks.map((mask) => element("td", {}, shareOf(mask, value)))));
    return element("table", {}, element("thead", {}, head), element("tbody", {}, ...rows));
  }

  function enlarge(place, list = looked) {
    looked = list;
    opened = Math.max(0, Math.min(looked.length - 1, place));
    const photo = looked[opened];
    large.querySelector("h2").textContent = photo.name;
    large.querySelector(".large-tiles").replaceChildren(...tiles(photo));
    large.querySelector(".badges").replaceChildren(...badges(photo));
    large.querySelector(".large-shares").replaceChildren(shares(photo));
    large.querySelector(".between span").textContent = `${thousands(opened + 1)} of ${thousands(looked.length)}`;
    if (!large.open) large.showModal();
    large.scrollTop = 0;
  }

  large.addEventListener("click", (event) => {
    const button = event.target.closest("button");
    if (event.target === large || button?.value === "close") large.close();
    else if (button) enlarge(opened + Number(button.value));
  });
  large.addEventListener("keydown", (event) => {
    const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (step) enlarge(opened + step);
  });
  tools.addEventListener("submit", (event) => event.preventDefault());
  tools.addEventListener("input", (event) => (["view", "strength"].includes(event.target.name) ? look() : search()));
  more.addEventListener("click", addCards);
  document.querySelectorAll("[data-class], [data-look]").forEach((link) => link.addEventListener("click", () => {
    tools.reset();
    if (tools.elements.set) tools.elements.set.value = link.dataset.look ?? photos[0].set;
    tools.elements.class.value = link.dataset.class ?? "";
    tools.elements.look.checked = "look" in link.dataset;
    look();
    search();
  }));
  document.querySelectorAll("[data-copy]").forEach((button) => button.addEventListener("click", async () => {
    const code = button.parentElement.querySelector("code");
    try {
      await navigator.clipboard.writeText(code.textContent);
    } catch {
      getSelection().selectAllChildren(code);
      document.execCommand("copy");
    }
    button.textContent = "Copied";
  }));

  const head = document.getElementById("first"), best = first.map((place) => photos[place]);
  best.forEach((photo, place) => {
    const mask = photo.masks.find((mask) => mask.kind === "prediction") ?? photo.masks[0];
    const open = element("button", { type: "button", title: photo.name }, tile(photo, mask));
    open.addEventListener("click", () => enlarge(place, best));
    head.querySelector(".strip").append(open);
  });
  head.hidden = !best.length;
  tools.hidden = false;
  look();
  search();
})();
