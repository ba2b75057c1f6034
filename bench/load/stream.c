/* Closed-loop load on an echo server of a stream, plain or over TLS: a batch is `depth` lines.
 *
 * stream --port P --pid SERVER --connections N --size BYTES --depth N --seconds S --warm-up S --tls 0|1
 */
#define _GNU_SOURCE
#include "closed_loop.h"

#include <errno.h>
#include <stdlib.h>
#ifdef WITH_TLS
#include <openssl/err.h>
#include <openssl/ssl.h>
#endif

#define BATCHES 16 /* different contents that connections take in turn */

static char *batches;
static size_t batch_size;

#ifdef WITH_TLS
static void start_tls(struct connection *c)
{
    static SSL_CTX *context;
    if (context == NULL) {
        context = SSL_CTX_new(TLS_client_method());
        SSL_CTX_set_mode(context, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
        SSL_CTX_set_read_ahead(context, 1);
    }
    c->own = SSL_new(context);
    SSL_set_fd(c->own, c->fd);
    if (SSL_connect(c->own) != 1)
        die("TLS handshake: %s", ERR_reason_error_string(ERR_get_error()));
}

/* Bytes moved, 0 at the end of the stream, -1 with EAGAIN when the socket is not ready. */
static ssize_t tls_result(SSL *ssl, int result)
{
    if (result > 0)
        return result;
    int error = SSL_get_error(ssl, result);
    if (error == SSL_ERROR_ZERO_RETURN)
        return 0;
    errno = error == SSL_ERROR_WANT_READ || error == SSL_ERROR_WANT_WRITE ? EAGAIN : EPROTO;
    return -1;
}

static ssize_t tls_put(struct connection *c, const char *data, size_t size)
{
    return tls_result(c->own, SSL_write(c->own, data, (int)size));
}

static ssize_t tls_get(struct connection *c, char *data, size_t size)
{
    return tls_result(c->own, SSL_read(c->own, data, (int)size));
}

static void use_tls(struct exchange *exchange)
{
    exchange->greet = start_tls;
    exchange->put = tls_put;
    exchange->get = tls_get;
}
#else
static void use_tls(struct exchange *exchange)
{
    (void)exchange;
    die("built without OpenSSL: install its headers (libssl-dev)");
}
#endif

static void next(struct connection *c)
{
    c->batch = batches + batch_size * (c->turn % BATCHES);
    c->batch_size = batch_size;
}

static bool check(struct connection *c, const char *data, size_t size)
{
    return check_bytes(c, data, size, c->batch, batch_size);
}

/* Each batch holds `depth` lines of `size` bytes, newline included. */
static void fill_batches(size_t size)
{
    batches = malloc(batch_size * BATCHES);
    fill_letters(batches, batch_size * BATCHES);
    for (size_t end = size; end <= batch_size * BATCHES; end += size)
        batches[end - 1] = '\n';
}

int main(int argc, char **argv)
{
    size_t size = (size_t)option(argc, argv, "size", 100), depth = (size_t)option(argc, argv, "depth", 1);
    struct exchange exchange = {.depth = depth, .next = next, .check = check};
    batch_size = size * depth;
    fill_batches(size);
    if (option(argc, argv, "tls", 0) != 0)
        use_tls(&exchange);
    closed_loop(&exchange, argc, argv);
    return 0;
}
