// Each function leaves its outcome in the page, where the test reads it.
const say = (id, text) => { document.getElementById(id).textContent = text; };

say("script", "the script has run");

function echoOverWebSocket(text) {
  const socket = new WebSocket(`ws://${location.host}/websocket`);
  socket.onopen = () => socket.send(text);
  socket.onmessage = (message) => { say("websocket", message.data); socket.close(1000); };
  socket.onclose = (event) => say("websocket-close", String(event.code));
}

function listenToEvents() {
  const source = new EventSource("/events");
  const seen = [];
  source.onmessage = (event) => {
    seen.push(event.data);
    say("events", seen.join(" "));
    if (event.data === "last") source.close();
  };
}

async function upload(file) {
  const answer = await fetch("/upload", { method: "POST", body: file });
  say("upload", `${answer.status} ${await answer.text()}`);
}

document.getElementById("file").addEventListener("change", (event) => upload(event.target.files[0]));
