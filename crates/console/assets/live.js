// Statuses change on the page as they change in the cluster: one event stream, no polling.
const stream = new EventSource("/live");
stream.addEventListener("task", (event) => {
  const task = JSON.parse(event.data);
  for (const element of document.querySelectorAll("[data-task]")) {
    if (element.dataset.task !== task.taskArn) continue;
    const text = task[element.dataset.field];
    if (element.classList.contains("status")) element.className = "status " + text;
    element.textContent = text;
  }
  // Ports and exit codes come with a status: those tables are fetched anew, in place.
  for (const table of document.querySelectorAll("[data-reload-on]")) {
    if (table.dataset.reloadOn === task.taskArn) refresh(table);
  }
});

async function refresh(table) {
  const answer = await fetch(location.href, { headers: { Accept: "text/html" } });
  if (!answer.ok) return;
  const page = new DOMParser().parseFromString(await answer.text(), "text/html");
  const fresh = page.querySelector("[data-reload-on]");
  if (fresh) table.replaceWith(fresh);
}
