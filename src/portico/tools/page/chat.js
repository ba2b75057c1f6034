// The chat in a browser. It speaks the subprotocol that chat_events.py describes. Whatever people say becomes text nodes.

const PROTOCOL = "portico.chat.v1";
const PING_EVERY = 5000; // milliseconds, as all below
const SILENT_AFTER = 2000; // an answer that takes longer is shown
const LOST_AFTER = 6000; // an answer that takes longer does not come any more
const OPEN_WITHIN = 10000;
const RETRY_FIRST = 500;
const RETRY_MOST = 15000;
const STAYED = 5000; // a connection that lasted as long was a good one: retries start anew
const TOGETHER = 300; // seconds between two messages of one person that need no second headline
const ENTRIES = 600; // that the page keeps
const UNSENT = 50; // messages that may wait for a connection
const LEFT = 4000; // the close code for somebody who said /quit

const DOORS = { tcp: "TCP", tls: "TLS", unix: "Unix", udp: "UDP", browser: "Browser", ws: "WebSocket" };
const clock = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit", hourCycle: "h23" });
const byId = (id) => document.getElementById(id);
const log = byId("log");
const messages = byId("messages");

const key = token();
const people = new Map(); // id -> person
const mine = new Set(); // ids that this page has had
const unsent = new Map(); // ref -> { text, entry }: said, and not come back yet
let wantedName = recall();
let socket = null;
let state = "connecting";
let catchingUp = null; // what has come between `past` and `welcome`
let run = "";
let lastId = null; // the last message heard
let lastSaid = null; // the message of the last entry, if that is one
let heardAt = 0; // when anything came last
let awaySince = null;
let welcomedAt = 0;
let openedAt = 0;
let attempts = 0;
let retryAt = 0;
let pings = 0;
let pingSent = null; // when, if it is unanswered
let roundTrip = null;

// Small things.

function token() {
  return Array.from(crypto.getRandomValues(new Uint8Array(15)), (byte) => byte.toString(16).padStart(2, "0")).join("");
}

function recall() {
  try {
    return localStorage.getItem("portico-chat-name") ?? "";
  } catch {
    return ""; // storage is forbidden here
  }
}

function remember(name) {
  wantedName = name;
  try {
    localStorage.setItem("portico-chat-name", name);
  } catch {
    // then it is known until the page closes
  }
}

function element(tag, className, ...children) {
  const made = document.createElement(tag);
  made.className = className;
  made.append(...children);
  return made;
}

function counted(count, one, many = `${one}s`) {
  return `${count} ${count === 1 ? one : many}`;
}

function doorName(door) {
  return DOORS[door] ?? door;
}

function avatar(name) {
  let sum = 0;
  for (const letter of name) sum = (sum * 31 + letter.codePointAt(0)) >>> 0;
  const made = element("span", `avatar hue-${sum % 6}`, (Array.from(name)[0] ?? "?").toUpperCase());
  made.ariaHidden = "true";
  return made;
}

// The light.

function show(next) {
  if (next !== state) announce(next, state);
  state = next;
  light();
}

function light() {
  const offline = state === "waiting" && !navigator.onLine;
  byId("light").dataset.state = offline ? "offline" : state;
  byId("light-text").textContent = lightText(offline);
  byId("retry").hidden = state !== "waiting" && state !== "left";
  byId("retry").textContent = state === "left" ? "Join again" : "Try now";
  document.body.classList.toggle("stale", state !== "connected");
  byId("people").classList.toggle("old", state !== "connected" && lastId !== null);
}

function lightText(offline) {
  const now = Date.now();
  if (state === "connected") {
    if (pingSent !== null && now - pingSent >= SILENT_AFTER) return `No answer for ${Math.round((now - pingSent) / 1000)} s`;
    return roundTrip === null ? "Connected" : `Connected · ${roundTrip < 1 ? "<1" : Math.round(roundTrip)} ms`;
  }
  if (state === "waiting") {
    const left = `${Math.max(1, Math.ceil((retryAt - now) / 1000))} s`;
    return offline ? `Offline · trying again in ${left}` : `Reconnecting in ${left}`;
  }
  if (state === "left") return "You have left";
  return attempts ? "Reconnecting…" : "Connecting…";
}

function announce(next, before) {
  const words = { connected: "Connected", left: "You have left the room" };
  if (next === "waiting" && before === "connected") byId("announcement").textContent = "Connection lost. Reconnecting.";
  else if (next in words) byId("announcement").textContent = words[next];
}

// The connection.

function connect() {
  const url = new URL("chat", location.href);
  url.protocol = url.protocol.replace("http", "ws");
  const opening = new WebSocket(url, PROTOCOL);
  socket = opening;
  catchingUp = null;
  openedAt = Date.now();
  opening.onopen = () => {
    const hello = { name: wantedName, key, run, after: lastId ?? 0 };
    opening.send(JSON.stringify({ hello }));
  };
  opening.onmessage = (message) => {
    if (opening === socket) heard(JSON.parse(message.data));
  };
  opening.onclose = (closing) => {
    if (opening === socket) lost(closing.code === LEFT);
  };
  show("connecting");
}

function abandon() {
  const before = socket;
  socket = null; // whatever it still says counts no more
  before?.close();
  lost(false);
}

function lost(left) {
  const now = Date.now();
  socket = null;
  pingSent = roundTrip = null;
  if (state === "connected") {
    awaySince ??= heardAt;
    if (now - welcomedAt > STAYED) attempts = 0;
  }
  const longest = Math.min(RETRY_MOST, RETRY_FIRST * 2 ** attempts);
  attempts += 1;
  retryAt = now + longest * (0.5 + Math.random() / 2); // not everybody at once
  show(left ? "left" : "waiting");
}

function ping() {
  if (state !== "connected" || pingSent !== null) return;
  pings += 1;
  pingSent = Date.now();
  const number = pings;
  const started = performance.now();
  ping.answered = (answer) => {
    if (answer !== number) return;
    pingSent = null;
    roundTrip = performance.now() - started;
    light();
  };
  socket.send(JSON.stringify({ ping: number }));
}

function tick() {
  const now = Date.now();
  if (state === "waiting" && now >= retryAt) connect();
  else if (state === "connecting" && now - openedAt > OPEN_WITHIN) abandon();
  else if (state === "connected" && pingSent !== null && now - pingSent > LOST_AFTER) abandon();
  else if (state === "connected" && now - Math.max(tick.pinged ?? 0, welcomedAt) >= PING_EVERY) {
    tick.pinged = now;
    ping();
  }
  light();
}

function retryNow() {
  if (state === "waiting" || state === "left") connect();
}

// What the room says.

const events = {
  past: (event) => {
    catchingUp = { ...event, said: [], people: new Map() };
  },
  here: ({ who }) => catchingUp.people.set(who.id, who),
  welcome: ({ you }) => welcome(you, catchingUp),
  said: (event) => {
    if (catchingUp) catchingUp.said.push(event);
    else said(event);
  },
  came: ({ who }) => {
    people.set(who.id, who);
    note(`${who.name} came in by ${who.door === "browser" ? "browser" : doorName(who.door)}`);
    showPeople();
  },
  left: ({ id }) => {
    if (catchingUp) {
      catchingUp.people.delete(id);
      return;
    }
    note(`${people.get(id)?.name} left`);
    people.delete(id);
    showPeople();
  },
  named: ({ id, name }) => named(id, name),
  note: ({ text }) => note(text),
  pong: ({ ping: number }) => ping.answered?.(number),
};

function heard(event) {
  heardAt = Date.now();
  events[event.type]?.(event);
}

function welcome(id, past) {
  const again = lastId !== null;
  const same = past.run === run;
  if (!same) mine.clear(); // another room counts its people anew
  const missed = past.said.filter((each) => !unsent.has(each.ref));
  if (again) tellAway(past, missed.length, same);
  for (const each of past.said) said(each);
  catchingUp = null;
  run = past.run;
  lastId = past.said.at(-1)?.id ?? past.last;
  mine.add(id);
  people.clear();
  for (const [each, person] of past.people) people.set(each, person);
  byId("room").textContent = document.title = past.room;
  if (!again) divider(`You came in at ${clock.format(Date.now())}`);
  else if (missed.length) divider(`You are back, ${clock.format(Date.now())}`);
  byId("name").value = people.get(id).name;
  awaySince = null;
  welcomedAt = Date.now();
  showPeople();
  show("connected");
  ping();
  for (const [ref, { text }] of unsent) sendSaid(text, ref);
  byId("empty").hidden = true;
  setTimeout(() => (log.ariaLive = "polite")); // what was said before is not read out
}

// Says what this page knows of the time that it was away, and no more.
function tellAway(past, missed, same) {
  const [from, until] = [awaySince ?? heardAt, Date.now()].map((time) => clock.format(time));
  const span = from === until ? from : `${from}–${until}`;
  const last = past.said.at(-1)?.id ?? past.last;
  const forgotten = same ? last - lastId - past.said.length : 0; // ids have no gaps
  const kept = missed ? counted(missed, "message") : "nothing was said";
  let text = `While you were away (${span}): ${kept}`;
  if (forgotten) text = `While you were away (${span}): ${counted(missed + forgotten, "message")}, of which the server has the last ${missed}`;
  if (!same) {
    text = `The server restarted while you were away (${span}): what was said before is lost`;
    if (missed) text += `; since then: ${counted(missed, "message")}`;
  }
  divider(text, "away");
}

// What is shown.

function hush() {
  log.ariaLive = "off";
  if (lastId !== null) setTimeout(() => (log.ariaLive = "polite"));
}

function append(entry, saidEvent = null) {
  const atEnd = log.scrollHeight - log.scrollTop - log.clientHeight < 60;
  const [waiting] = unsent.values(); // what is not sent yet stays last
  messages.insertBefore(entry, waiting ? waiting.entry : null);
  lastSaid = saidEvent;
  while (messages.childElementCount > ENTRIES) messages.firstElementChild.remove();
  byId("empty").hidden = true;
  if (atEnd) log.scrollTop = log.scrollHeight;
  else byId("newest").hidden = false;
}

function note(text) {
  append(element("li", "note", text));
}

function divider(text, more = "") {
  append(element("li", `divider ${more}`, element("span", "", text)));
}

function entryOf(event, own) {
  const same = lastSaid && lastSaid.by === event.by && lastSaid.name === event.name && event.at - lastSaid.at < TOGETHER;
  const when = new Date(event.at * 1000);
  const time = element("time", "", clock.format(when));
  time.dateTime = when.toISOString();
  const who = element("p", same ? "who unseen" : "who", element("span", "name", event.name));
  who.append(" ", element("span", "door", doorName(event.door)), " ");
  if (own) who.append(element("span", "you", "you"), " ");
  who.append(time);
  const text = element("p", "text", event.text);
  text.dir = "auto";
  const entry = element("li", `message${same ? " same" : ""}${own ? " own" : ""}`);
  if (!same) entry.append(avatar(event.name));
  entry.append(element("div", "", who, text));
  return entry;
}

function said(event) {
  const waiting = unsent.get(event.ref);
  const own = mine.has(event.by) || waiting !== undefined;
  if (waiting) {
    unsent.delete(event.ref);
    waiting.entry.remove();
  }
  if (own) hush(); // who has said it knows it
  append(entryOf(event, own), event);
  lastId = event.id;
}

function named(id, name) {
  const person = people.get(id);
  if (!mine.has(id)) note(`${person.name} is ${name} now`);
  people.set(id, { ...person, name });
  if (mine.has(id)) {
    remember(name);
    byId("name").value = name;
  }
  showPeople();
}

function showPeople() {
  const entries = Array.from(people.values(), (person) => {
    const called = element("span", "called", element("span", "name", person.name));
    if (mine.has(person.id)) called.append(" ", element("span", "you", "you"));
    return element("li", "", avatar(person.name), called, " ", element("span", "door", doorName(person.door)));
  });
  byId("people-list").replaceChildren(...entries);
  for (const count of document.querySelectorAll(".count")) count.textContent = people.size;
}

// What the person does.

function sendSaid(text, ref) {
  socket.send(JSON.stringify({ say: text, ref }));
}

function say(text) {
  if (text.startsWith("/")) {
    if (state === "connected") sendSaid(text, "");
    else note("Not connected: commands have to wait.");
    return state === "connected";
  }
  if (unsent.size >= UNSENT) {
    note("Too much waits to be sent already.");
    return false;
  }
  const ref = token();
  const entry = element("li", "message pending", element("div", "", element("p", "text", text)));
  unsent.set(ref, { text, entry });
  hush();
  messages.append(entry);
  log.scrollTop = log.scrollHeight;
  if (state === "connected") sendSaid(text, ref);
  return true;
}

byId("say-form").addEventListener("submit", (submitted) => {
  submitted.preventDefault();
  const input = byId("say");
  const text = input.value.trim();
  if (!text || say(text)) input.value = "";
  input.focus();
});

function rename() {
  const input = byId("name");
  const name = input.value.trim();
  const own = Array.from(people.values()).find((person) => mine.has(person.id));
  if (!name || name === own?.name) return;
  if (state === "connected") {
    sendSaid(`/name ${name}`, "");
    input.value = own.name; // until the room agrees
  } else remember(name);
}

byId("name-form").addEventListener("submit", (submitted) => {
  submitted.preventDefault();
  rename();
  byId("say").focus();
});
byId("name").addEventListener("change", rename);

byId("show-people").addEventListener("click", () => {
  const open = byId("people").classList.toggle("open");
  byId("show-people").ariaExpanded = String(open);
});

byId("newest").addEventListener("click", () => {
  log.scrollTop = log.scrollHeight;
  log.focus();
});
log.addEventListener("scroll", () => {
  if (log.scrollHeight - log.scrollTop - log.clientHeight < 60) byId("newest").hidden = true;
});

byId("retry").addEventListener("click", () => {
  retryNow();
  byId("say").focus(); // the button goes away
});
addEventListener("online", retryNow);
addEventListener("offline", light);
document.addEventListener("visibilitychange", () => {
  if (document.visibilityState !== "visible") return;
  if (state === "waiting") connect();
  else ping();
});
addEventListener("pagehide", () => {
  if (state !== "left") abandon(); // a browser may keep the page, and with it the connection
});
new ResizeObserver(() => {
  if (byId("newest").hidden) log.scrollTop = log.scrollHeight;
}).observe(log);

setInterval(tick, 250);
if (!matchMedia("(pointer: coarse)").matches) byId("say").focus();
connect();
