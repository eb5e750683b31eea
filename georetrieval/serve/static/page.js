"use strict";

const at = (id) => document.getElementById(id);
const view = JSON.parse(at("map").dataset.view);
const map = L.map("map", { maxZoom: 21, attributionControl: true });
map.attributionControl.setPrefix('<a href="https://leafletjs.com">Leaflet</a>');
L.control.scale({ imperial: false }).addTo(map);
map.fitBounds(view, { maxZoom: 18 });
const ground = L.layerGroup().addTo(map);
const pins = L.layerGroup().addTo(map);
const shown = new Map();

// A function that ends what the last call of it began: old answers may come after new ones.
function onlyLatest(action) {
  let last = new AbortController();
  return async (...given) => {
    last.abort();
    last = new AbortController();
    const { signal } = last;
    try { await action(signal, ...given); } catch (error) { if (!signal.aborted) throw error; }
  };
}

// The map is made of the index's own tiles: those that cover the view.
const cover = onlyLatest(async (signal) => {
  const box = map.getBounds();
  const asked = new URLSearchParams({
    west: box.getWest(), south: box.getSouth(), east: box.getEast(), north: box.getNorth(),
  });
  const tiles = await (await fetch(`/tiles?${asked}`, { signal })).json();
  const placed = new Map(tiles.map((tile) => [`${tile.row} ${tile.bounds}`, tile]));
  for (const [key, layer] of shown) {
    if (!placed.has(key)) { ground.removeLayer(layer); shown.delete(key); }
  }
  for (const [key, { row, bounds }] of placed) {
    if (!shown.has(key)) shown.set(key, L.imageOverlay(`/tile/${row}`, bounds).addTo(ground));
  }
});
map.on("moveend", () => cover());
cover();

function heading() {
  const chosen = document.querySelector("input[name=heading]:checked").value;
  return chosen === "given" ? at("degrees").value : chosen;
}

function say(text, error = false) {
  at("status").textContent = text;
  at("status").classList.toggle("error", error);
}

const locate = onlyLatest(async (signal, file) => {
  at("answer").hidden = true;
  say(`Looking for ${file.name} …`);
  const asked = new URLSearchParams({ name: file.name, heading: heading() });
  let response, answer;
  try {
    response = await fetch(`/locate?${asked}`, { method: "POST", body: file, signal });
    answer = await response.json();
  } catch (error) {
    if (signal.aborted) throw error;
    say("The server does not answer, or the file is too large for it.", true);
    return;
  }
  if (!response.ok) { say(answer.error, true); return; }
  show(answer);
});

function show(answer) {
  say("");
  at("photo").src = answer.photo;
  at("photo").hidden = false;
  pins.clearLayers();
  const place = at("place");
  const [best] = answer.candidates;
  const lost = answer.found === false || !best;
  place.className = lost ? "lost" : "found";
  if (!best) { place.textContent = "Not found"; at("answer").hidden = false; return; }
  const words = [`${best.latitude.toFixed(6)}, ${best.longitude.toFixed(6)}`];
  if (best.metres !== null) words.push(`± ${best.metres.toFixed(1)} m`);
  if (best.heading !== null) words.push(`heading ${best.heading.toFixed(0)}°`);
  if (best.probability !== null) words.push(`probability ${Math.round(100 * best.probability)} %`);
  place.textContent = (lost ? "Not found; the best guess is " : "") + words.join(", ");
  for (const view of document.querySelectorAll(".views figure")) view.hidden = !answer.bev;
  if (answer.bev) {
    at("bev").src = at("over").src = answer.bev;
    at("winner").src = `/tile/${best.row}`;
    const share = answer.bev_share;
    Object.assign(at("over").style, {
      inset: "auto",
      width: `${100 * share}%`,
      height: `${100 * share}%`,
      left: `${50 + 100 * answer.bev_right - 50 * share}%`,
      top: `${50 - 100 * answer.bev_up - 50 * share}%`,
    });
  }
  at("candidates").replaceChildren(...answer.candidates.map((one, k) => {
    const item = document.createElement("li");
    const picture = document.createElement("img");
    picture.src = `/tile/${one.row}`;
    picture.alt = one.id;
    const sure = one.probability === null ? one.score.toFixed(3) : `${Math.round(100 * one.probability)} %`;
    item.append(picture, `${k + 1}. ${sure}`);
    item.title = `${one.latitude.toFixed(6)}, ${one.longitude.toFixed(6)}`;
    item.onclick = () => map.setView([one.latitude, one.longitude], 19);
    return item;
  }));
  answer.candidates.slice(1).forEach((one) => {
    L.circleMarker([one.latitude, one.longitude], { radius: 6, color: "#d08a1a" }).addTo(pins);
  });
  L.marker([best.latitude, best.longitude]).addTo(pins);
  at("answer").hidden = false;
  map.setView([best.latitude, best.longitude], 18);
}

at("mix").oninput = (event) => { at("over").style.opacity = event.target.value / 100; };
at("over").style.opacity = 0.6;
at("file").onchange = (event) => { if (event.target.files[0]) locate(event.target.files[0]); };
const drop = at("drop");
drop.onkeydown = (event) => { if (event.key === "Enter") at("file").click(); };
for (const name of ["dragover", "dragleave", "drop"]) {
  document.addEventListener(name, (event) => {
    event.preventDefault();
    drop.classList.toggle("over", name === "dragover");
  });
}
document.addEventListener("drop", (event) => {
  const [file] = event.dataTransfer.files;
  if (file) locate(file);
});
