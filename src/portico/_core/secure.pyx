# cython: language_level=3, boundscheck=False, wraparound=False, initializedcheck=False
"""TLS as a wire upon any other: OpenSSL by way of the standard library's memory BIOs."""
from cpython.buffer cimport PyBUF_READ
from cpython.bytes cimport PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.memoryview cimport PyMemoryView_FromMemory
from libc.math cimport INFINITY

from .hub cimport Flushable, Hub, portico_monotonic
from .wire cimport NOWHERE, Sink, Wire

cdef object ssl = None      # imported by the first TLS connection: it takes long
cdef object WantRead, ZeroReturn, SSLError

cdef object explain = None


def explain_errors_with(function):
    """Let `function(error)` return what is told of an error of an established connection."""
    global explain
    explain = function


cdef double ALERT_LINGER = 1.0      # seconds that a peer gets to read why it is turned away


cdef int load_ssl() except -1:
    global ssl, WantRead, ZeroReturn, SSLError
    if ssl is None:
        import ssl as module
        WantRead, ZeroReturn, SSLError = module.SSLWantReadError, module.SSLZeroReturnError, module.SSLError
        ssl = module
    return 0


cdef class TLSWire(Wire):
    """TLS upon `below`. `on_handshake(error)` is called once, with None when the connection is secure."""

    def __init__(self, Wire below not None, context, *, bint server_side, server_name=None, double timeout=INFINITY,
                 on_handshake=None):
        load_ssl()
        self.hub = below.hub
        self.below = below
        self.sink = NOWHERE
        self.can_half_close = True
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.ssl_object = context.wrap_bio(self.incoming, self.outgoing, server_side=server_side, server_hostname=server_name)
        self.pending = self.ssl_object.pending
        self.on_handshake = on_handshake
        if timeout != INFINITY:
            self.hub.set_timer(self, portico_monotonic() + timeout)

    def start(self, bytes already_read=b""):
        """Begin the handshake; `already_read` is what came of it before."""
        self.below.attach(self)
        if already_read:
            self.incoming.write(already_read)
        self.handshake()

    def fileno(self):
        return self.below.fileno()

    @property
    def lower(self):
        """The wire that carries the records."""
        return self.below

    # from below

    cdef int bytes_arrived(self, const char* data, Py_ssize_t size) except -1:
        if self.failed or self.ended:
            return 0
        self.incoming.write(PyMemoryView_FromMemory(<char*>data, size, PyBUF_READ))
        if not self.established:
            return self.handshake()
        return self.read_records() if self.attached else 0

    cdef int wire_ended(self) except -1:
        self.below_ended = True
        if self.failed or (self.end_closing and self.end_sent):
            return self.below.shut()
        if self.ended:
            return 0
        if not self.established:
            return self.fail(EOFError("the peer closed the connection during the TLS handshake"))
        if not self.attached:
            return 0            # `attach` comes back to it
        return self.fail(ConnectionAbortedError("the peer closed the connection without TLS's close_notify; what came may be "
                                                "cut short"))

    cdef int wire_lost(self, object error) except -1:
        self.below_lost = True
        self.hub.set_timer(self, INFINITY)
        if self.cause is None:
            self.cause = error
        on_handshake, self.on_handshake = self.on_handshake, None
        if on_handshake is not None:
            on_handshake(error or EOFError("the connection was closed during the TLS handshake"))
        return self.hub.mark_dirty(self)

    cdef int wire_room(self) except -1:
        self.count_backlog()
        if self.shutting and not self.backlog:
            return self.shut()
        return self.sink.wire_room()

    cdef int count_backlog(self) except -1:
        self.backlog = self.below.backlog
        if self.early is not None:
            for data in self.early:
                self.backlog += PyBytes_GET_SIZE(data)
        return 0

    # the handshake

    cdef int handshake(self) except -1:
        try:
            self.ssl_object.do_handshake()
        except WantRead:
            return self.send_records()
        except Exception as error:
            self.send_records()
            return self.fail(error)
        self.send_records()
        return self.establish()

    cdef int establish(self) except -1:
        self.established = True
        self.hub.set_timer(self, INFINITY)
        on_handshake, self.on_handshake = self.on_handshake, None
        if on_handshake is not None:
            on_handshake(None)
        early, self.early = self.early, None
        if early:
            self.encrypt(b"".join(early))
            self.wire_room()
        if self.end_wanted:
            self.end_writing(self.end_closing)
        if not self.attached:
            return self.below.pause()
        if self.incoming.pending or self.pending():
            self.read_records()
        return 0

    cdef int expire(self, double now) except -1:
        if self.failed or self.shutting:
            return self.below.shut()
        return self.fail(TimeoutError("the TLS handshake took too long"))

    cdef int fail(self, object error) except -1:
        """Give up; an alert may be on its way to the peer, so let it be read."""
        if self.failed:
            return 0
        self.failed = True
        if self.cause is None:
            self.cause = explain(error) if explain is not None and self.established and isinstance(error, SSLError) else error
        if self.below_ended and not self.below.backlog:
            self.below.shut()
        elif not self.below_lost:
            self.below.resume()
            self.below.end_writing(True)
            self.hub.set_timer(self, portico_monotonic() + ALERT_LINGER)
        on_handshake, self.on_handshake = self.on_handshake, None
        if on_handshake is not None:
            on_handshake(error)
        return self.hub.mark_dirty(self)

    cdef int end_turn(self) except -1:
        """Tell of what came before there was anyone to tell, and of the loss; outside of any call from above."""
        if self.unread_at_attach:
            self.unread_at_attach = False
            self.read_records()
            if self.below_ended:
                self.wire_ended()
        if (self.failed or self.below_lost) and self.attached and not self.lost_told:
            self.lost_told = True
            sink, self.sink = self.sink, NOWHERE
            (<Sink>sink).wire_lost(self.cause)
        return 0

    # receiving

    cdef int attach(self, Sink sink) except -1:
        self.sink = sink
        if not self.attached:
            self.attached = True
            if self.established:
                self.unread_at_attach = True
                self.below.resume()
            self.hub.mark_dirty(self)
        elif self.lost_told:
            self.lost_told = False
            self.hub.mark_dirty(self)
        return 0

    cdef int read_records(self) except -1:
        cdef Py_ssize_t size
        try:
            while not self.ended and not self.failed:
                size = self.ssl_object.read(self.hub.scratch_size, self.hub.scratch_view)
                if size == 0:
                    self.ended = True
                    break
                self.sink.bytes_arrived(self.hub.scratch, size)
                if not self.incoming.pending and not self.pending():
                    break
        except WantRead:
            pass
        except ZeroReturn:
            self.ended = True
        except SSLError as error:
            self.send_records()
            return self.fail(error)
        if self.outgoing.pending:
            self.send_records()
        return self.sink.wire_ended() if self.ended else 0

    cdef bint unconfirmed(self) noexcept:
        return self.backlog > 0 or self.below.unconfirmed()

    cdef int measure(self) except -1:
        return self.below.measure()

    cdef int pause(self) except -1:
        return self.below.pause()

    cdef int resume(self) except -1:
        return self.below.resume()

    # sending

    cdef int write(self, const char* data, Py_ssize_t size) except -1:
        if self.established:
            return self.encrypt(PyMemoryView_FromMemory(<char*>data, size, PyBUF_READ))
        return self.write_early(PyBytes_FromStringAndSize(data, size))

    cdef int write_chunks(self, list chunks) except -1:
        data = chunks[0] if len(chunks) == 1 else b"".join(chunks)
        return self.encrypt(data) if self.established else self.write_early(data)

    def write_early(self, data):
        if self.early is None:
            self.early = []
        self.early.append(bytes(data))
        self.count_backlog()
        return 0

    cdef int encrypt(self, object data) except -1:
        cdef Py_ssize_t size, sent
        if self.failed or self.end_sent:
            return 0
        try:
            sent = self.ssl_object.write(data)
            size = len(data)
            if sent < size:
                view = memoryview(data)
                while sent < size:
                    sent += self.ssl_object.write(view[sent:])
        except SSLError as error:
            return self.fail(error)
        return self.send_records()

    cdef int send_records(self) except -1:
        records = self.outgoing.read()
        if PyBytes_GET_SIZE(records) and not self.below_lost:
            self.below.write_chunks([records])
            self.backlog = self.below.backlog
        return 0

    cdef int end_writing(self, bint closing) except -1:
        """Send close_notify; what the peer still sends is received as before."""
        self.end_wanted = True
        self.end_closing = closing
        if self.failed or self.below_lost or not self.established:
            return 0
        if not self.end_sent:
            if self.incoming.pending or self.pending():     # OpenSSL would take data for an error here
                self.read_records()
                if self.end_sent or self.failed:
                    return 0
            self.end_sent = True
            try:
                self.ssl_object.unwrap()
            except SSLError:
                pass        # WantRead: the peer's own close_notify is still to come
            self.send_records()
        # TCP's own end waits for the peer's close_notify: some clients lose what they have not read when both come at once.
        return 0

    # closing

    cdef int shut(self) except -1:
        self.hub.set_timer(self, INFINITY)
        if self.established and not self.end_sent and not self.below_lost:
            self.end_writing(False)
            if self.below.backlog:      # `wire_room` or `expire` comes back to it
                self.shutting = True
                return self.hub.set_timer(self, portico_monotonic() + ALERT_LINGER)
        return self.below.shut()

    cdef int drop(self) except -1:
        self.hub.set_timer(self, INFINITY)
        return self.below.drop()
