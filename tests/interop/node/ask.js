// A client of `ws`: sends what is asked of it to an echo server, checks the answers, and says how it was closed.
'use strict';
const { WebSocket } = require('ws');
const [, , url, kind] = process.argv;
const socket = new WebSocket(url, { perMessageDeflate: kind === 'deflate' ? { threshold: 0 } : false });
const messages = ['hello', '', 'é€𝄞'.repeat(1000), Buffer.alloc(0), Buffer.from([0, 255, 128]), Buffer.alloc(700000, 7)];
let next = 0;
socket.on('open', () => {
  socket.ping('here');
  for (const message of messages) socket.send(message);
  socket.send('in ', { fin: false });
  socket.send('two ', { fin: false });
  socket.send('pieces', { fin: true });
});
socket.on('pong', (data) => console.log(`pong ${data}`));
socket.on('message', (data, isBinary) => {
  const expected = next < messages.length ? messages[next] : 'in two pieces';
  if (isBinary !== Buffer.isBuffer(expected) || !data.equals(Buffer.from(expected))) process.exit(3);
  next += 1;
  if (next > messages.length) socket.close(4001, 'enough');
});
socket.on('close', (code, reason) => console.log(`extensions [${socket.extensions}] closed ${code} ${reason}`));
socket.on('error', (error) => { console.log(error.message); process.exit(2); });
