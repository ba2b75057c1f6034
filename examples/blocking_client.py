"""A server and its client without asyncio, as one would type them at the interactive prompt."""

import portico
from portico import blocking


def shout(channel: portico.BlockingChannel[str]) -> None:
    for line in channel:
        channel.send(line.upper())


def main() -> None:
    with blocking.serve(shout, "tcp://127.0.0.1:0", codec=portico.Lines()) as server:
        with blocking.connect(server.address, codec=portico.Lines()) as channel:
            channel.send("hello")
            print(channel.recv(timeout=5))
            try:
                channel.recv(wait=False)
            except portico.WouldBlock:
                print("nothing more yet")
            for word in ("and", "goodbye"):
                channel.send(word)
            channel.send_eof()
            print(*channel)


if __name__ == "__main__":
    main()
