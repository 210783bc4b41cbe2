"use strict";
(() => {
  const UNCERTAIN = 255, AT_ONCE = 48;
  const { names, colours, kinds, photos } = JSON.parse(document.getElementById("data").textContent);
  const tools = document.getElementById("tools");
  const cards = document.getElementById("cards");
  const more = document.getElementById("more");
  const count = document.getElementById("count");
  const large = document.getElementById("large");
  let found = [], shown = 0, opened = 0;

  const element = (tag, properties = {}, ...children) => {
    const made = Object.assign(document.createElement(tag), properties);
    made.append(...children);
    return made;
  };
  const nameOf = (value, kind) => (value !== UNCERTAIN ? names[value] : kind === "truth" ? "not scored" : "uncertain");
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

  function why(photo) {
    const parts = [];
    const why = photo.masks.some((mask) => mask.kind === "proxy") ? "in doubt" : "differ from the truth";
    if (photo.pixels !== null) parts.push(`${percent(photo.pixels)} of pixels ${why}`);
    if (photo.missing.length) parts.push(`not found: ${photo.missing.map(nameOf).join(", ")}`);
    return parts.join("; ");
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
    const doubt = element("p", { className: "doubt" }, photo.doubt === null ? "doubt not known" : `doubt ${photo.doubt.toFixed(0)}`);
    const row = element("div", { className: "tile-row" }, ...tiles(photo));
    for (const part of [open, row]) part.addEventListener("click", () => enlarge(place));
    return element("article", {}, element("div", { className: "top" }, element("h3", {}, open), doubt), row,
      element("p", { className: "why" }, why(photo)), legend(photo));
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
      && (!chosen("missing") || photo.missing.length > 0) && photo.name.toLowerCase().includes(text));
    const byName = (a, b) => (a.name < b.name ? -1 : 1);
    const doubt = (photo, unknown) => photo.doubt ?? unknown;
    found.sort({
      doubt: (a, b) => doubt(b, -1) - doubt(a, -1) || byName(a, b),
      sure: (a, b) => doubt(a, 999) - doubt(b, 999) || byName(a, b),
      name: byName,
    }[order]);
    const all = photos.filter((photo) => !set || photo.set === set).length;
    count.textContent = found.length ? `${thousands(found.length)} of ${thousands(all)} photos` : "No photo is like that.";
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

  function enlarge(place) {
    opened = Math.max(0, Math.min(found.length - 1, place));
    const photo = found[opened];
    large.querySelector("h2").textContent = photo.name;
    large.querySelector(".large-tiles").replaceChildren(...tiles(photo));
    large.querySelector(".why").textContent = [photo.doubt === null ? "" : `Doubt ${photo.doubt.toFixed(0)}`, why(photo)].filter(Boolean).join(": ");
    large.querySelector(".large-shares").replaceChildren(shares(photo));
    large.querySelector(".between span").textContent = `${thousands(opened + 1)} of ${thousands(found.length)}`;
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
  document.querySelectorAll("[data-class], [data-missing]").forEach((link) => link.addEventListener("click", () => {
    tools.reset();
    tools.elements.class.value = link.dataset.class ?? "";
    tools.elements.missing.checked = "missing" in link.dataset;
    look();
    search();
  }));
  tools.hidden = false;
  look();
  search();
})();
