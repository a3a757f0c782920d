// What the cluster does shows on the open page: one event stream, no polling.
let stream = null;

function connect() {
  if (stream) return;
  stream = new EventSource("/live");
  stream.addEventListener("task", (event) => {
    show(JSON.parse(event.data));
    refresh();
  });
  for (const name of ["instance", "cluster", "task-definition"]) {
    stream.addEventListener(name, refresh);
  }
  // What happened between the making of the page and the beginning of the stream, or while it was cut.
  stream.addEventListener("open", refresh);
  // A stream that may not be opened again means that the log-in has ended: the page says where to go.
  stream.addEventListener("error", () => {
    if (stream?.readyState === EventSource.CLOSED) location.reload();
  });
}

// A browser opens six connections to a server at most, and keeps the streams of pages that it may come
// back to: pages that nobody sees let go of theirs, or the seventh would never load.
function disconnect() {
  stream?.close();
  stream = null;
}

addEventListener("pagehide", disconnect);
addEventListener("pageshow", connect);
document.addEventListener("visibilitychange", () => (document.hidden ? disconnect() : connect()));
if (!document.hidden) connect();

// A status is shown at once, so that none is missed however fast the next one comes.
function show(task) {
  for (const element of document.querySelectorAll("[data-task]")) {
    if (element.dataset.task !== task.taskArn) continue;
    const text = task[element.dataset.field];
    if (element.classList.contains("status")) element.className = "status " + text;
    element.textContent = text;
  }
}

let fetching = false;
let again = false;

// Fetches the page anew and puts its live parts in place of the old ones.
async function refresh() {
  again = true;
  if (fetching) return;
  fetching = true;
  while (again) {
    again = false;
    try {
      await replace();
    } catch {
      break; // the server is away: when it is back, the stream opens, and that calls here
    }
    await new Promise((resolve) => setTimeout(resolve, 100)); // many changes, one fetch
  }
  fetching = false;
}

async function replace() {
  const parts = document.querySelectorAll("[data-live]");
  if (parts.length === 0) return;
  const answer = await fetch(location.href, { headers: { Accept: "text/html" } });
  if (!answer.ok || answer.redirected) return;
  const page = new DOMParser().parseFromString(await answer.text(), "text/html");
  for (const old of parts) {
    const fresh = page.getElementById(old.id);
    if (fresh && !fresh.isEqualNode(old)) old.replaceWith(fresh);
  }
}
