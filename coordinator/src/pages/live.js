// Keeps a page live: each event carries one part of it, rendered by the server, under that part's id.
(() => {
  const live = document.getElementById("live");
  const say = (text, on) => { live.textContent = text; live.classList.toggle("on", on); };
  const source = new EventSource(document.body.dataset.events);
  source.onopen = () => say("live", true);
  source.onerror = () => say("connection lost, trying again", false);
  source.addEventListener("part", (event) => {
    const end = event.data.indexOf("\n");
    const part = document.getElementById(event.data.slice(0, end));
    if (part) part.innerHTML = event.data.slice(end + 1);
    document.body.dataset.updates = Number(document.body.dataset.updates || 0) + 1;
  });
})();
