"use strict";
/* Node's net and tls: a data callback that splits lines by hand, one write a line, corked per chunk. Its dgram: a callback
 * for each packet. */

const dgram = require("dgram");
const fs = require("fs");
const net = require("net");
const tls = require("tls");

const [port, mode] = [Number(process.argv[2]), process.argv[3]];
const BACKLOG = 4096;
const LINE_SIZE = 100;
const NEWLINE = 10;
const UDP_BUFFER = 4 << 20;
const QUESTION_SIZE = 1;

/* Calls `take` with each line of a socket, newline included. */
function eachLine(socket, take) {
  let rest = null;
  socket.on("data", (chunk) => {
    const data = rest === null ? chunk : Buffer.concat([rest, chunk]);
    let start = 0;
    let end;
    socket.cork();
    while ((end = data.indexOf(NEWLINE, start)) >= 0) {
      take(data.subarray(start, end + 1));
      start = end + 1;
    }
    socket.uncork();
    rest = start < data.length ? data.subarray(start) : null;
  });
}

function echoLines(socket) {
  socket.on("error", () => socket.destroy());
  eachLine(socket, (line) => socket.write(line));
}

function echoBytes(socket) {
  socket.on("error", () => socket.destroy());
  socket.on("data", (chunk) => socket.write(chunk));
}

const members = [];
let serial = 0;

function broadcast(burst) {
  for (const member of members) member.cork();
  for (let i = 0; i < burst; i++) {
    serial += 1;
    const line = Buffer.from(String(serial).padStart(10, "0").padEnd(LINE_SIZE - 1, "x") + "\n");
    for (const member of members) member.write(line);
  }
  for (const member of members) member.uncork();
}

function group(socket) {
  socket.on("error", () => socket.destroy());
  eachLine(socket, (line) => {
    const text = line.toString().trimEnd();
    if (text === "join") {
      members.push(socket);
      socket.write("joined\n");
    } else if (text.startsWith("send ")) {
      broadcast(Number(text.slice(5)));
    }
  });
}

/* A UDP socket. An address that is one needs no lookup. */
function servePackets() {
  const lookup = (host, options, done) => done(null, host, 4);
  const socket = dgram.createSocket({ type: "udp4", recvBufferSize: UDP_BUFFER, lookup });
  let packets = 0;
  let size = 0;
  if (mode === "udp-receive") {
    socket.on("message", (data, peer) => {
      packets += 1;
      size += data.length;
      if (data.length === QUESTION_SIZE) socket.send(`${packets} ${size}`, peer.port, peer.address);
    });
  } else {
    socket.on("message", (data, peer) => socket.send(data, peer.port, peer.address));
  }
  socket.bind(port, "127.0.0.1", () => console.log(`ready ${port}`));
}

function serveStreams() {
  const options = { noDelay: true };
  let server;
  if (mode === "tls") {
    options.cert = fs.readFileSync(process.env.BENCH_CERTIFICATE);
    options.key = fs.readFileSync(process.env.BENCH_KEY);
    server = tls.createServer(options, echoBytes);
  } else {
    server = net.createServer(options, mode === "group" ? group : mode === "raw" ? echoBytes : echoLines);
  }
  server.listen({ port, host: "127.0.0.1", backlog: BACKLOG }, () => console.log(`ready ${port}`));
}

if (mode.startsWith("udp-")) servePackets();
else serveStreams();
