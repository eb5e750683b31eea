// The plan shows one method at a time.
for (const button of document.querySelectorAll(".switch button")) {
  button.addEventListener("click", () => {
    const figure = button.closest("figure");
    figure.querySelectorAll(".switch button").forEach((other) => {
      other.setAttribute("aria-pressed", String(other === button));
    });
    figure.querySelectorAll(".layer").forEach((layer, number) => {
      layer.classList.toggle("off", String(number) !== button.dataset.layer);
    });
  });
}
// A click on a picture enlarges its query.
for (const picture of document.querySelectorAll(".card img")) {
  picture.addEventListener("click", () => picture.closest(".card").classList.toggle("big"));
}
// Paper has no clicks: what is folded is printed open.
addEventListener("beforeprint", () => {
  document.querySelectorAll("details").forEach((part) => { part.open = true; });
});
