(function () {
  "use strict";
  var bar = document.querySelector(".filter");
  if (bar) {
    var cards = Array.prototype.slice.call(document.querySelectorAll(".finding"));
    var search = bar.querySelector("input[type=search]");
    var boxes = Array.prototype.slice.call(bar.querySelectorAll("input[type=checkbox]"));
    var shown = bar.querySelector("output");
    var apply = function () {
      var words = search.value.toLowerCase(), count = 0;
      var states = boxes.filter(function (b) { return b.checked; }).map(function (b) { return b.value; });
      cards.forEach(function (card) {
        var fits = states.indexOf(card.dataset.state) >= 0 && card.textContent.toLowerCase().indexOf(words) >= 0;
        card.hidden = !fits;
        count += fits ? 1 : 0;
      });
      shown.textContent = count + " of " + cards.length + " shown";
    };
    bar.addEventListener("input", apply);
    bar.hidden = false;
    apply();
  }
  window.addEventListener("beforeprint", function () {
    document.querySelectorAll("details:not(.bulk)").forEach(function (d) { d.open = true; });
  });
}());
