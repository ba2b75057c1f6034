"use strict";
/* ws on Node with bufferutil: a callback for each message. With `corked` what it sends for the messages of one chunk, or for a
 * burst, leaves in one write: the socket beneath, which ws knows nothing of, is corked at the first and uncorked at the end. */

const { WebSocketServer } = require("ws");

const [port, mode] = [Number(process.argv[2]), process.argv[3]];
const CORKS = process.argv[4] === "corked";
const BACKLOG = 4096;
const MESSAGE_SIZE = 100;
const LARGEST_MESSAGE = 16 << 20;
const BINARY = { binary: true };

/* Windows of 4 KiB at the fastest level, as many at a time as there are connections, cost the least time; small ones, small
 * chunks and nothing kept between messages the least memory. */
const DEFLATE = {
  "ws-deflate": {
    threshold: 0,
    concurrencyLimit: 50,
    serverMaxWindowBits: 12,
    clientMaxWindowBits: 12,
    zlibDeflateOptions: { level: 1, memLevel: 5 },
  },
  "ws-idle-deflate": {
    threshold: 0,
    serverNoContextTakeover: true,
    clientNoContextTakeover: true,
    serverMaxWindowBits: 10,
    clientMaxWindowBits: 10,
    zlibDeflateOptions: { level: 1, memLevel: 3, chunkSize: 1024 },
    zlibInflateOptions: { chunkSize: 1024 },
  },
};

function echo(websocket, socket) {
  let corked = false;
  const uncork = () => {
    corked = false;
    socket.uncork();
  };
  websocket.on("message", (data) => {
    if (CORKS && !corked) {
      corked = true;
      socket.cork();
      process.nextTick(uncork);
    }
    websocket.send(data, BINARY);
  });
}

const members = [];
let serial = 0;

function broadcast(burst) {
  if (CORKS) for (const { socket } of members) socket.cork();
  for (let i = 0; i < burst; i++) {
    serial += 1;
    const message = Buffer.from(String(serial).padStart(10, "0").padEnd(MESSAGE_SIZE, "x"));
    for (const { websocket } of members) websocket.send(message, BINARY);
  }
  if (CORKS) for (const { socket } of members) socket.uncork();
}

function group(websocket, socket) {
  websocket.on("message", (data) => {
    const text = data.toString();
    if (text === "join") {
      members.push({ websocket, socket });
      websocket.send(Buffer.from("joined"), BINARY);
    } else if (text.startsWith("send ")) {
      broadcast(Number(text.slice(5)));
    }
  });
}

const server = new WebSocketServer({
  port,
  host: "127.0.0.1",
  backlog: BACKLOG,
  maxPayload: LARGEST_MESSAGE,
  perMessageDeflate: DEFLATE[mode] ?? false,
});
server.on("listening", () => console.log(`ready ${port}`));
server.on("connection", (websocket, request) => {
  websocket.on("error", () => websocket.terminate());
  (mode === "ws-group" ? group : echo)(websocket, request.socket);
});
