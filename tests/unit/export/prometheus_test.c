// SPDX-License-Identifier: Apache-2.0
#include <errno.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "export/exposition.h"
#include "export/prometheus.h"

#include <cmocka.h>

#define AREA   (16u << 20)
#define SERIES 2000u

struct fixture {
	struct snapshot_writer *w;
	struct snapshot_reader *r;
	struct snapshot s;
	char *text;
};

static int setup(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));

	if (!f || snapshot_writer_new(&f->w, AREA) ||
	    snapshot_reader_open(&f->r, snapshot_writer_fd(f->w)))
		return -1;
	*state = f;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;

	free(f->text);
	snapshot_done(&f->s);
	snapshot_reader_free(&f->r);
	snapshot_writer_free(&f->w);
	free(f);
	return 0;
}

/* The pieces one after the other; ret_pieces: how many, or NULL. */
static const char *render_counted(struct fixture *f, bool openmetrics, unsigned int *ret_pieces)
{
	struct prometheus *p = NULL;
	unsigned int pieces = 0;
	const char *piece;
	size_t len = 0, n;

	assert_int_equal(snapshot_commit(f->w), 0);
	assert_int_equal(snapshot_read(f->r, &f->s), 0);
	assert_int_equal(prometheus_new(&p, &f->s, openmetrics), 0);
	do {
		assert_int_equal(prometheus_next(p, NULL, 0, &piece, &n), 0);
		f->text = realloc(f->text, len + n + 1);
		assert_non_null(f->text);
		memcpy(f->text + len, piece, n);
		f->text[len += n] = '\0';
		pieces++;
	} while (!prometheus_done(p));
	prometheus_free(&p);
	if (ret_pieces)
		*ret_pieces = pieces;
	return f->text;
}

static const char *render(struct fixture *f, bool openmetrics)
{
	return render_counted(f, openmetrics, NULL);
}

static void has(const char *text, const char *line)
{
	size_t n = strlen(line);

	for (const char *at = text; (at = strstr(at, line)); at++)
		if ((at == text || at[-1] == '\n') && at[n] == '\n')
			return;
	fail_msg("no line '%s' in:\n%s", line, text);
}

static unsigned int count(const char *text, const char *what)
{
	unsigned int n = 0;

	for (const char *at = text; (at = strstr(at, what)); at++)
		n++;
	return n;
}

static void workload(struct fixture *f, const char *name)
{
	struct snap_workload *k = snapshot_add(f->w, SNAP_WORKLOADS, sizeof(*k));

	assert_non_null(k);
	k->name = snapshot_str(f->w, name);
}

static struct snap_series *series(struct fixture *f, enum kilter_role role, uint16_t status)
{
	struct snap_series *s = snapshot_add(f->w, SNAP_SERIES, sizeof(*s));

	assert_non_null(s);
	s->role = (uint8_t)role;
	s->status = status;
	s->protocol = KILTER_PROTO_HTTP1;
	s->method = KILTER_METHOD_GET;
	s->port = 8080;
	return s;
}

static void a_histogram_is_cumulative_and_agrees_with_its_count(void **state)
{
	struct fixture *f = *state;
	const char *text;
	struct snap_series *s;

	workload(f, "web");
	s = series(f, KILTER_ROLE_SERVER, 200);
	s->classic[0] = 3;
	s->classic[10] = 2;
	s->classic[KILTER_CLASSIC_BOUNDS] = 1;
	s->sum_ns = 12345678901;
	text = render(f, false);
#define N "http_server_request_duration_seconds"
#define L                                                                                     \
	"service_name=\"web\",http_request_method=\"GET\",http_response_status_code=\"200\"," \
	"url_scheme=\"http\",server_port=\"8080\""
	has(text, "# TYPE " N " histogram");
	has(text, N "_bucket{" L ",le=\"0.001\"} 3");
	has(text, N "_bucket{" L ",le=\"0.75\"} 3");
	has(text, N "_bucket{" L ",le=\"1\"} 5");
	has(text, N "_bucket{" L ",le=\"10\"} 5");
	has(text, N "_bucket{" L ",le=\"+Inf\"} 6");
	has(text, N "_count{" L "} 6");
	has(text, N "_sum{" L "} 12.345678901");
	assert_int_equal(count(text, N "_bucket{"), KILTER_CLASSIC_BUCKETS);
}

static void labels_follow_the_conventions(void **state)
{
	struct fixture *f = *state;
	const char *text;
	struct snap_series *s;

	workload(f, "c");
	s = series(f, KILTER_ROLE_CLIENT, 404);
	s->address = snapshot_str(f->w, "192.0.2.1");
	s = series(f, KILTER_ROLE_CLIENT, 0);
	s->error = KILTER_REQ_RESET;
	s = series(f, KILTER_ROLE_SERVER, 404);
	s->route = snapshot_str(f->w, "/a/{id}");
	s = series(f, KILTER_ROLE_SERVER, 503);
	s->method = 200; /* out of its range: never an index */
	s = series(f, KILTER_ROLE_SERVER, 200);
	s->workload = SNAPSHOT_NO_INDEX;
	text = render(f, false);
	has(text,
	    "http_client_request_duration_seconds_count{service_name=\"c\",http_request_method="
	    "\"GET\",http_response_status_code=\"404\",server_address=\"192.0.2.1\",server_"
	    "port=\"8080\",error_type=\"404\"} 0");
	has(text,
	    "http_client_request_duration_seconds_count{service_name=\"c\",http_request_method="
	    "\"GET\",server_port=\"8080\",error_type=\"reset\"} 0");
	has(text,
	    "http_server_request_duration_seconds_count{service_name=\"c\",http_request_method="
	    "\"GET\",http_response_status_code=\"404\",url_template=\"/a/{id}\",url_scheme="
	    "\"http\",server_port=\"8080\"} 0");
	has(text,
	    "http_server_request_duration_seconds_count{service_name=\"c\",http_request_method="
	    "\"_OTHER\",http_response_status_code=\"503\",url_scheme=\"http\",server_port="
	    "\"8080\",error_type=\"503\"} 0");
	assert_int_equal(count(text, "service_name=\"unknown\""), KILTER_CLASSIC_BUCKETS + 2);
}

#define RPC "rpc_server_call_duration_seconds"

static struct snap_series *call(struct fixture *f, enum kilter_role role, unsigned int code)
{
	struct snap_series *s = series(f, role, (uint16_t)(KILTER_STATUS_GRPC + code));

	s->protocol = KILTER_PROTO_GRPC;
	s->method = KILTER_METHOD_POST;
	s->route = snapshot_str(f->w, "a.v1.B/C");
	s->address = snapshot_str(f->w, role == KILTER_ROLE_CLIENT ? "192.0.2.1" : "");
	return s;
}

static void calls_of_grpc_are_a_family_of_their_own(void **state)
{
	struct fixture *f = *state;
	const char *text;
	struct snap_series *s;

	workload(f, "web");
	series(f, KILTER_ROLE_SERVER, 200);
	s = call(f, KILTER_ROLE_SERVER, 0);
	s->classic[0] = 3;
	s->classic[KILTER_CLASSIC_BOUNDS] = 1;
	s->sum_ns = 1500000000;
	call(f, KILTER_ROLE_CLIENT, 0);
	text = render(f, false);
#define L_RPC                                                                    \
	"service_name=\"web\",rpc_system_name=\"grpc\",rpc_method=\"a.v1.B/C\"," \
	"rpc_response_status_code=\"OK\""
	has(text, "# TYPE " RPC " histogram");
	has(text, RPC "_bucket{" L_RPC ",server_port=\"8080\",le=\"0.001\"} 3");
	has(text, RPC "_bucket{" L_RPC ",server_port=\"8080\",le=\"+Inf\"} 4");
	has(text, RPC "_count{" L_RPC ",server_port=\"8080\"} 4");
	has(text, RPC "_sum{" L_RPC ",server_port=\"8080\"} 1.5");
	has(text, "rpc_client_call_duration_seconds_count{" L_RPC
		  ",server_address=\"192.0.2.1\",server_port=\"8080\"} 0");
	assert_int_equal(count(text, N "_count{"), 1);
	assert_int_equal(count(text, RPC "_count{"), 1);
	assert_int_equal(count(text, "http_client_request_duration_seconds_count{"), 0);
}

/* OpenTelemetry: of the server six codes, of the client all but OK. */
static void codes_of_grpc_are_errors_by_side(void **state)
{
	static const char *const names[KILTER_GRPC_CODES] = {"OK",
							     "CANCELLED",
							     "UNKNOWN",
							     "INVALID_ARGUMENT",
							     "DEADLINE_EXCEEDED",
							     "NOT_FOUND",
							     "ALREADY_EXISTS",
							     "PERMISSION_DENIED",
							     "RESOURCE_EXHAUSTED",
							     "FAILED_PRECONDITION",
							     "ABORTED",
							     "OUT_OF_RANGE",
							     "UNIMPLEMENTED",
							     "INTERNAL",
							     "UNAVAILABLE",
							     "DATA_LOSS",
							     "UNAUTHENTICATED"};
	static const bool errors[KILTER_GRPC_CODES] = {
	    [2] = true, [4] = true, [12] = true, [13] = true, [14] = true, [15] = true};
	struct fixture *f = *state;
	char line[512], error[64];
	const char *text;

	workload(f, "w");
	for (unsigned int i = 0; i < KILTER_GRPC_CODES; i++) {
		call(f, KILTER_ROLE_SERVER, i);
		call(f, KILTER_ROLE_CLIENT, i);
	}
	text = render(f, false);
	for (unsigned int i = 0; i < KILTER_GRPC_CODES; i++) {
		for (int client = 0; client < 2; client++) {
			snprintf(error, sizeof(error), ",error_type=\"%s\"", names[i]);
			snprintf(line, sizeof(line),
				 "rpc_%s_call_duration_seconds_count{service_name=\"w\",rpc_"
				 "system_name=\"grpc\",rpc_method=\"a.v1.B/C\",rpc_response_"
				 "status_code=\"%s\"%s,server_port=\"8080\"%s} 0",
				 client ? "client" : "server", names[i],
				 client ? ",server_address=\"192.0.2.1\"" : "",
				 (client ? i > 0 : errors[i]) ? error : "");
			has(text, line);
		}
	}
}

static void a_call_without_a_status_has_none(void **state)
{
	struct fixture *f = *state;
	const char *text;
	struct snap_series *s;

	workload(f, "w");
	s = call(f, KILTER_ROLE_SERVER, 0);
	s->status = 0;
	s->error = KILTER_REQ_CLOSED;
	s = call(f, KILTER_ROLE_CLIENT, 0);
	s->status = 0;
	s->route = snapshot_str(f->w, "");
	call(f, KILTER_ROLE_SERVER, KILTER_GRPC_CODES); /* out of its range: never an index */
	text = render(f, false);
	has(text, RPC "_count{service_name=\"w\",rpc_system_name=\"grpc\",rpc_method=\"a.v1.B/C\","
		      "server_port=\"8080\",error_type=\"closed\"} 0");
	has(text, RPC "_count{service_name=\"w\",rpc_system_name=\"grpc\",rpc_method=\"a.v1.B/C\","
		      "server_port=\"8080\"} 0");
	has(text,
	    "rpc_client_call_duration_seconds_count{service_name=\"w\",rpc_system_name=\"grpc\","
	    "server_address=\"192.0.2.1\",server_port=\"8080\"} 0");
}

/* One service may answer the same request in both versions: two series, so two sets of labels. */
static void http2_says_its_version(void **state)
{
	struct fixture *f = *state;
	const char *text;

	workload(f, "w");
	series(f, KILTER_ROLE_SERVER, 503)->classic[0] = 1;
	series(f, KILTER_ROLE_SERVER, 503)->protocol = KILTER_PROTO_HTTP2;
	text = render(f, false);
#define L_503                                                                           \
	N "_count{service_name=\"w\",http_request_method=\"GET\",http_response_status_" \
	  "code=\"503\",url_scheme=\"http\",server_port=\"8080\""
	has(text, L_503 ",error_type=\"503\"} 1");
	has(text, L_503 ",network_protocol_version=\"2\",error_type=\"503\"} 0");
}

static void label_values_are_escaped_and_always_utf8(void **state)
{
	struct fixture *f = *state;
	const char *text;
	struct snap_circuit *c = snapshot_add(f->w, SNAP_CIRCUITS, sizeof(*c));

	c->name = snapshot_str(f->w, "a\"b\\c\nd\xff\xc3\xa9\xed\xa0\x80\xe2");
	c->state = snapshot_str(f->w, "open");
	c->transitions[1] = 4;
	c->refused[KILTER_REFUSED_OPEN] = UINT64_MAX;
	text = render(f, false);
#define BAD "\xef\xbf\xbd"
#define C   "circuit=\"a\\\"b\\\\c\\nd" BAD "\xc3\xa9" BAD BAD BAD BAD "\""
	has(text, "kilter_circuit_state{" C ",state=\"open\"} 1");
	has(text, "kilter_circuit_state{" C ",state=\"closed\"} 0");
	has(text, "kilter_circuit_state{" C ",state=\"half_open\"} 0");
	has(text, "kilter_circuit_transitions_total{" C ",to=\"open\"} 4");
	has(text, "kilter_circuit_refused_total{" C ",reason=\"open\"} 18446744073709551615");
}

static void own_figures_of_one_name_are_one_family(void **state)
{
	struct fixture *f = *state;
	static const char *const names[] = {"x_total", "y", "x_total", "kilter_ticks_total"};
	const char *text;
	struct snap_node *node = snapshot_add(f->w, SNAP_NODE, sizeof(*node));

	node->ticks = 9;
	for (uint32_t i = 0; i < 4; i++) {
		struct snap_metric *m = snapshot_add(f->w, SNAP_METRICS, sizeof(*m));

		m->name = snapshot_str(f->w, names[i]);
		m->help = snapshot_str(f->w, "H");
		m->counter = i != 1;
		m->first = i == 3 ? UINT32_MAX : i; /* a row that is not there */
		m->count = i == 3 ? UINT32_MAX : 1;
	}
	for (uint32_t i = 0; i < 3; i++) {
		struct snap_sample *s = snapshot_add(f->w, SNAP_SAMPLES, sizeof(*s));
		char labels[16];

		snprintf(labels, sizeof(labels), "n=\"%u\"", i);
		s->labels = snapshot_str(f->w, labels);
		s->value = i == 1 ? (double)NAN : 0.5 + i;
	}
	text = render(f, false);
	assert_int_equal(
	    count(text, "# TYPE x_total counter\nx_total{n=\"0\"} 0.5\nx_total{n=\"2\"} 2.5\n"), 1);
	has(text, "y{n=\"1\"} NaN");
	has(text, "kilter_ticks_total 9");
	assert_int_equal(count(text, "# TYPE kilter_ticks_total "), 1);
	assert_int_equal(count(text, "# HELP x_total "), 1);
}

static void openmetrics_names_counters_without_total_and_ends(void **state)
{
	struct fixture *f = *state;
	const char *text;
	struct snap_node *node = snapshot_add(f->w, SNAP_NODE, sizeof(*node));

	node->ticks = 9;
	workload(f, "web");
	series(f, KILTER_ROLE_SERVER, 200);
	text = render(f, true);
	has(text, "# TYPE kilter_ticks counter");
	has(text, "kilter_ticks_total 9");
	assert_int_equal(count(text, "le=\"1.0\""), 1);
	assert_int_equal(count(text, "le=\"1\""), 0);
	assert_string_equal(text + strlen(text) - 6, "# EOF\n");
	assert_int_equal(count(render(f, false), "# EOF"), 0);
}

/* Each line once, in whichever piece, and no piece much longer than it should be. */
static void a_long_text_is_made_in_pieces(void **state)
{
	struct fixture *f = *state;
	char name[64], line[128];
	unsigned int pieces;
	const char *text;
	struct snap_health *h;

	for (unsigned int i = 0; i < SERIES; i++) {
		snprintf(name, sizeof(name), "service-%u", i);
		workload(f, name);
		series(f, i % 2 ? KILTER_ROLE_SERVER : KILTER_ROLE_CLIENT, 200)->workload = i;
		h = snapshot_add(f->w, SNAP_HEALTH, sizeof(*h));
		assert_non_null(h);
		h->kind = snapshot_str(f->w, "service");
		h->name = snapshot_str(f->w, name);
		h->state = snapshot_str(f->w, "healthy");
	}
	for (int openmetrics = 0; openmetrics < 2; openmetrics++) {
		text = render_counted(f, openmetrics, &pieces);
		assert_in_range(pieces, strlen(text) / (EXPOSITION_PIECE_BYTES + 8192),
				strlen(text) / EXPOSITION_PIECE_BYTES + 1);
		assert_true(pieces > 3);
		assert_int_equal(count(text, "# TYPE http_server_request_duration_seconds "), 1);
		assert_int_equal(count(text, "# TYPE http_client_request_duration_seconds "), 1);
		assert_int_equal(count(text, "# TYPE kilter_health_state "), 1);
		assert_int_equal(count(text, "_request_duration_seconds_count{"), SERIES);
		assert_int_equal(count(text, "\nkilter_health_state{"), 4 * SERIES);
		assert_int_equal(count(text, "# EOF"), openmetrics);
		for (unsigned int i = 0; i < SERIES; i += 7) {
			snprintf(line, sizeof(line),
				 "kilter_health_state{kind=\"service\",subject=\"service-%u\","
				 "state=\"healthy\"} 1\n",
				 i);
			assert_int_equal(count(text, line), 1);
		}
	}
}

static void numbers_read_back(void **state)
{
	static const double values[] = {0,    1,    -1,	 0.1,	    1e-6,   123456.789, 1e300,
					1e15, 1e16, 0.3, 1.0 / 3.0, 5e-324, -0.25};
	char buf[33];

	(void)state;
	for (size_t i = 0; i < sizeof(values) / sizeof(values[0]); i++) {
		buf[exposition_number(values[i], buf)] = '\0';
		assert_true(strtod(buf, NULL) == values[i]);
	}
	buf[exposition_number((double)INFINITY, buf)] = '\0';
	assert_string_equal(buf, "+Inf");
	buf[exposition_number((double)NAN, buf)] = '\0';
	assert_string_equal(buf, "NaN");
	buf[exposition_number(42, buf)] = '\0';
	assert_string_equal(buf, "42");
	buf[exposition_number(0.1, buf)] = '\0';
	assert_string_equal(buf, "0.1");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test_setup_teardown(a_histogram_is_cumulative_and_agrees_with_its_count,
					    setup, teardown),
	    cmocka_unit_test_setup_teardown(labels_follow_the_conventions, setup, teardown),
	    cmocka_unit_test_setup_teardown(calls_of_grpc_are_a_family_of_their_own, setup,
					    teardown),
	    cmocka_unit_test_setup_teardown(codes_of_grpc_are_errors_by_side, setup, teardown),
	    cmocka_unit_test_setup_teardown(a_call_without_a_status_has_none, setup, teardown),
	    cmocka_unit_test_setup_teardown(http2_says_its_version, setup, teardown),
	    cmocka_unit_test_setup_teardown(label_values_are_escaped_and_always_utf8, setup,
					    teardown),
	    cmocka_unit_test_setup_teardown(own_figures_of_one_name_are_one_family, setup,
					    teardown),
	    cmocka_unit_test_setup_teardown(openmetrics_names_counters_without_total_and_ends,
					    setup, teardown),
	    cmocka_unit_test_setup_teardown(a_long_text_is_made_in_pieces, setup, teardown),
	    cmocka_unit_test(numbers_read_back),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
