// An echo server of `ws`: its port is the first line of the output. The path /close/CODE/REASON closes so,
// /ping pings and sends the milliseconds that the pong took.
'use strict';
const { WebSocketServer } = require('ws');
const deflate = process.argv[2] === 'deflate' ? { threshold: 0 } : false;
const server = new WebSocketServer({ host: '127.0.0.1', port: 0, perMessageDeflate: deflate, maxPayload: 1 << 24 });
server.on('listening', () => console.log(server.address().port));
server.on('connection', (socket, request) => {
  const [, word, code, reason] = decodeURIComponent(request.url).split('/');
  socket.on('error', () => {});
  if (word === 'close') socket.close(Number(code), reason);
  if (word === 'ping') {
    const begun = performance.now();
    socket.on('pong', (data) => socket.send(`${data}: ${performance.now() - begun}`));
    socket.ping('here');
  }
  socket.on('message', (data, isBinary) => socket.send(data, { binary: isBinary }));
});
