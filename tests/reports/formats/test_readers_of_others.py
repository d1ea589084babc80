"""Every figure of other tools' reports is read under the right name, and nothing that is no figure."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reports.formats.durations import amount, milliseconds
from reports.formats.read import READERS, load, read
from reports.model import Rate, ReportError, Summary


@pytest.fixture
def total(golden):
    return lambda name: load(golden / "others" / name).aggregate


def test_oha_is_read_with_its_units(total):
    found = total("oha.txt")
    assert found.summaries["http.response_time"] == Summary(
        min=0.3, max=16.0, mean=2.0, p50=1.0, p75=1.2, p90=2.5, p95=3.1, p99=9.8, p999=15.0, count=198
    )
    assert found.counters["http.requests"] == 200 and found.counters["http.codes.503"] == 3
    assert found.counters["errors.connection closed before message completed"] == 2
    assert found.rates == {"http.request_rate": Rate(971.333)}


def test_oha_in_seconds_says_the_same(golden, total):
    text = (golden / "others" / "oha.txt").read_text()
    for milli, plain in (("16.0000 ms", "0.0160 secs"), ("300.0000 µs", "0.0003 secs"), ("2.0000 ms", "0.0020 sec")):
        text = text.replace(milli, plain)
    assert read(text, "x")[0].aggregate == total("oha.txt")


def test_ghz_is_not_taken_for_hey(golden):
    with pytest.raises(ReportError) as refused:
        load(golden / "others" / "ghz.txt")
    assert "\n" not in str(refused.value)


def test_vegetas_text_is_read_with_requests_without_an_answer(total):
    found = total("vegeta.txt")
    assert found.counters == {
        "http.requests": 1200, "errors.no answer": 535, "http.codes.200": 665, "http.responses": 665,
    }  # fmt: skip
    time = found.summaries["http.response_time"]
    assert (time.min, time.p99, time.max, time.count) == (0.090438, 62_500.0, 124_000.0, 1200)
    assert found.rates == {"http.request_rate": Rate(120.0)}


def test_times_of_connecting_in_vain_are_no_response_times(golden):
    """Where nothing was answered, so that no limit of time can be met."""
    nothing = re.sub(r"(Status Codes.*) 0:535  200:665", r"\1 0:1200", (golden / "others" / "vegeta.txt").read_text())
    assert "0:1200" in nothing
    (report,) = read(nothing, "x")
    assert "http.response_time" not in report.aggregate.summaries
    dead = re.sub(r"(http_req_duration\.*:).*", r"\1 avg=0s min=0s med=0s max=0s p(90)=0s p(95)=0s", NEW_K6)
    dead = re.sub(r"(http_req_failed\.*:).*", r"\1 100.00% 4200 out of 4200", dead)
    (report,) = read(dead, "x")
    assert report.aggregate.counters["errors.http_req_failed"] == 4200
    assert "http.response_time" not in report.aggregate.summaries


def test_vegetas_json_is_read(total):
    found = total("vegeta.json")
    time = found.summaries["http.response_time"]
    assert (time.min, time.p50, time.p90, time.p99, time.max) == (1.949582, 2.854306, 3.228223, 3.53, 3.660505)
    assert found.counters["errors.no answer"] == 1 and found.counters["http.codes.200"] == 99


def test_autocannons_tables_are_read(total):
    found = total("autocannon.txt")
    assert found.summaries["http.response_time"] == Summary(mean=46.84, max=106.0, p50=47.0, p99=105.0, count=124)
    assert found.counters["http.requests"] == 127 and found.counters["errors.non 2xx"] == 18
    assert found.rates == {"http.request_rate": Rate(62.0)}


def test_autocannons_json_is_read(total):
    found = total("autocannon.json")
    time = found.summaries["http.response_time"]
    assert (time.min, time.p75, time.p90, time.p999, time.count) == (17.0, 45.0, 47.0, 56.0, 135)
    assert found.counters["http.codes.503"] == 19
    assert (found.counters["errors.failed"], found.counters["errors.timeout"]) == (2, 1)


def test_zeros_of_a_run_without_answers_are_no_times(total):
    found = total("autocannon-no-answer.txt")
    assert not found.summaries and found.counters["errors.failed"] == 4000

    wrk = "Latency 0.00us 0.00us 0.00us -nan%\n50% 0.00us\n0 requests in 10.00s, 0.00MB read\nRequests/sec: 0.00\n"
    assert not read(wrk, "x")[0].aggregate.summaries

    hey = "Summary:\n Total: 1 secs\n Slowest: 0.0000 secs\n Fastest: 0.0000 secs\n Average: 0.0000 secs\n"
    hey += " Requests/sec: 2\nStatus code distribution:\nError distribution:\n [2]\tGet: connection refused\n"
    found = read(hey, "x")[0].aggregate
    assert not found.summaries and found.counters["errors.Get: connection refused"] == 2


def test_jmeters_samples_are_filed_in_the_period_of_their_start(golden):
    report = load(golden / "others" / "jmeter.jtl")
    total = report.aggregate
    assert [p.start_ms for p in report.periods] == [1_600_000_000_000, 1_600_000_010_000]
    assert total.counters["http.requests"] == 4 and total.counters["http.responses"] == 3
    assert total.counters["errors.500"] == 1 and total.counters["errors.Connection refused"] == 1
    assert total.summaries["http.response_time"].count == 3
    assert total.summaries["plugins.metrics-by-endpoint.response_time.buy, now"].max == 30
    assert total.summaries["plugins.metrics-by-endpoint.response_time.home"].count == 2


def test_a_spoilt_sample_is_refused_with_its_line(golden):
    text = (golden / "others" / "jmeter.jtl").read_text().replace("1600000002000,18", "1600000002000,x")
    with pytest.raises(ReportError, match="line 3: timeStamp or elapsed is not a number"):
        read(text, "x")


def test_locusts_history_ends_with_its_totals(total):
    found = total("locust-history.csv")
    assert found.counters["http.requests"] == 90 and found.counters["errors.failed"] == 2
    assert found.summaries["http.response_time"] == Summary(min=1.0, max=14.0, mean=5.5, p50=4.0, count=90)
    assert found.rates == {"http.request_rate": Rate(9.0)}


def test_locusts_failures_are_counted_by_error(total):
    assert total("locust-failures.csv").counters == {"errors.HTTPError('503')": 5}


def test_artillery_1s_console_is_read_with_its_periods(golden):
    report = load(golden / "others" / "artillery-1.txt")
    total = report.aggregate
    assert total.summaries["http.response_time"] == Summary(min=2.9, max=511.2, p50=12.6, p95=127.9, p99=386.1)
    assert total.counters["vusers.created"] == 100 and total.counters["vusers.created_by_name.buy"] == 40
    assert total.counters["http.codes.500"] == 8 and total.counters["errors.ETIMEDOUT"] == 2
    assert [p.start_ms for p in report.periods] == [1_592_825_266_000]
    assert not report.extras.partial


def test_artillery_1s_interrupted_console_is_added_up_and_partial(golden):
    text = (golden / "others" / "artillery-1.txt").read_text().partition("All virtual users")[0]
    report = read(text, "x")[0]
    assert report.extras.partial and report.aggregate.counters["http.responses"] == 90


OLD_K6 = """
     ✓ status was 200
     checks.........................: 99.00% ✓ 99       ✗ 1
     http_req_duration..............: avg=14.7ms  min=501µs  med=12.1ms max=1m2.5s   p(90)=26.4ms  p(95)=33.1ms
       { expected_response:true }...: avg=4.7ms  min=501µs  med=2.1ms max=1.25s   p(90)=6.4ms  p(95)=3.1ms
     http_req_failed................: 1.00%   ✓ 42         ✗ 4158
     http_reqs......................: 4200    139.912345/s
     iterations.....................: 4200    139.912345/s
     vus............................: 10      min=10       max=10
"""
NEW_K6 = """
  █ TOTAL RESULTS

    checks_total.......: 100    2.82469/s
    checks_succeeded...: 99.00% 99 out of 100
    checks_failed......: 1.00%   1 out of 100

    HTTP
    http_req_duration..............: avg=14.7ms  min=501µs  med=12.1ms max=1m2.5s   p(90)=26.4ms  p(95)=33.1ms
      { expected_response:true }...: avg=4.7ms  min=501µs  med=2.1ms max=1.25s   p(90)=6.4ms  p(95)=3.1ms
    http_req_failed................: 1.00%  42 out of 4200
    http_reqs......................: 4200   139.912345/s

    EXECUTION
    iterations.....................: 4200   139.912345/s
"""


@pytest.mark.parametrize("text", [OLD_K6, NEW_K6])
def test_k6s_text_is_read_before_1_0_and_since(text):
    (report,) = read(text, "x")
    found = report.aggregate
    assert found.summaries["http.response_time"] == Summary(
        min=0.501, max=62_500.0, mean=14.7, p50=12.1, p90=26.4, p95=33.1, count=4200
    )
    assert found.summaries["http_req_duration{expected_response:true}"].p95 == 3.1
    assert found.counters["errors.http_req_failed"] == 42 and found.counters["vusers.completed"] == 4200
    assert (found.counters["checks.succeeded"], found.counters["checks.failed"]) == (99, 1)
    assert found.rates == {"http.request_rate": Rate(139.912345)}


WRK = """  Thread Stats   Avg      Stdev     Max   +/- Stdev
    Latency    {0}0.10ms   80.00ms   2.10s    99.10%
    Req/Sec    10.00k     1.00k   20.00k    70.00%
  {0}000 requests in 10.00s, 90.00MB read
Requests/sec:  {0}00.00
Transfer/sec:      9.00MB
"""
HEY = "  Total: 1 secs\n  Slowest: 0.{0} secs\n  Fastest: 0.1 secs\n  Average: 0.1 secs\n  Requests/sec: {0}\n"


@pytest.mark.parametrize(
    "text", [WRK, HEY, "Summary:\n" + HEY + "\nStatus code distribution:\n  [200] {0} responses\n"]
)
@pytest.mark.parametrize("between", ["", "\n", "\nafter:\n\n", "> quoted\n"])
def test_a_text_with_several_reports_is_several_reports(text, between):
    found = read(text.format(2) + between + text.format(3) + between + text.format(4), "x")
    assert [report.aggregate.rates["http.request_rate"].per_second % 7 for report in found] == [
        read(text.format(n), "x")[0].aggregate.rates["http.request_rate"].per_second % 7 for n in (2, 3, 4)
    ]


def test_several_of_k6_are_told_apart_by_a_metric_that_comes_again():
    found = read(OLD_K6 + "\n" + NEW_K6.replace("4200", "4300"), "x")
    assert [report.aggregate.counters["http.requests"] for report in found] == [4200, 4300]


@pytest.mark.parametrize(
    ("text", "ms"),
    [
        ("1.5ms", 1.5),
        ("90.4 µs", 0.0904),
        ("1m2.5s", 62_500.0),
        ("2h", 7.2e6),
        ("0.0160 secs", 16.0),
        ("501ns", 0.000501),
    ],
)
def test_durations_are_read(text, ms):
    assert milliseconds(text) == ms


@pytest.mark.parametrize("text", ["", "5", "ms", "1.5 parsecs", "1ms x", "x 1ms", "1..5ms"])
def test_what_is_no_duration_is_refused(text):
    with pytest.raises(ReportError):
        milliseconds(text)


@pytest.mark.parametrize(("text", "value"), [("276k", 276_000.0), ("12 MB", 1.2e7), ("3", 3.0), ("1.5kB", 1500.0)])
def test_amounts_are_read(text, value):
    assert amount(text) == value


@given(st.text("0123456789.kMGB mnuµsh", max_size=12))
def test_any_text_is_a_duration_and_an_amount_or_is_refused(text):
    for parse in (milliseconds, amount):
        try:
            assert parse(text) >= 0
        except ReportError:
            continue


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("<html>", "x: no report that can be read: it is a page; what can be read is"),
        ("", "x: no report that can be read: it is empty"),
        ("Requests/sec: 5", "it looks like hey or oha text, but: "),
        ("Thread Stats   Avg\n", "it looks like wrk text, but: no Requests/sec with requests in"),
        ("http_req_duration...: what\n", "it looks like k6 text, but: "),
        ('{"aggregate": {"counters": []}}', "it looks like Artillery JSON, but: "),
        ('{"aggregate": ', "it looks like Artillery JSON, but: not JSON"),
        ('{"a": 1}', "of none of the known formats"),
    ],
)
def test_an_unreadable_file_gets_one_short_line_about_the_likeliest_format(text, said):
    with pytest.raises(ReportError) as refused:
        read(text, "x")
    assert said in str(refused.value) and len(str(refused.value)) < 250 and "\n" not in str(refused.value)
    assert len(refused.value.reasons) == len(READERS)


PERIOD = """--------------------------------------
Metrics for period to: 16:54:{0}(+0000) (width: 8.9s)
--------------------------------------

http.requests: ................................................................. 6{0}
http.response_time:
  min: ......................................................................... {0}
  max: ......................................................................... 2{0}
  median: ...................................................................... 4
"""


def test_an_interrupted_artillery_is_added_up_as_far_as_it_can_be_and_partial():
    (one,) = read(PERIOD.format(50), "x")
    assert one.extras.partial and one.aggregate.summaries["http.response_time"].p50 == 4

    (two,) = read(PERIOD.format(20) + PERIOD.format(30) + "^CStopping test run (SIGINT)...\n", "x")
    assert two.extras.partial and len(two.periods) == 2
    assert two.aggregate.counters["http.requests"] == 620 + 630
    assert two.aggregate.summaries["http.response_time"] == Summary(min=20.0, max=230.0)


def test_a_whole_run_before_an_interrupted_one_is_a_report_of_its_own():
    whole = PERIOD.format(20) + "Summary report @ 16:55:00(+0000)\nhttp.requests: .......... 7\n"
    first, second = read(whole + PERIOD.format(40), "x")
    assert first.aggregate.counters["http.requests"] == 7 and second.extras.partial


def test_wrk2s_exact_figures_are_those_of_its_spectra():
    rows = (
        "       0.{0}01     0.000000            1         1.00\n       {0}.663     0.950000        94417        20.00\n"
    )
    end = "#[Mean    =  {0}.602, StdDeviation   =  1.919]\n#[Max     =   1{0}.496, Total count    =        39500]\n"
    text = (
        "  Thread Stats   Avg      Stdev     Max   +/- Stdev\n    Latency     2.60ms    1.92ms  12.50ms   68.46%\n"
        "  Latency Distribution (HdrHistogram - Recorded Latency)\n 50.000%    1.37ms\n\n"
        + (rows + end).format(2)
        + "  Latency Distribution (HdrHistogram - Uncorrected Latency (measured without taking delayed starts into account))\n"
        + " 50.000%  206.00us\n" + (rows + end).format(1)
        + "  60018 requests in 30.00s, 19.81MB read\nRequests/sec:   2000.28\nTransfer/sec:    676.18KB\n"
    )  # fmt: skip
    (report,) = read(text, "x")
    assert report.extras.tool_version == "wrk2"
    assert report.aggregate.summaries == {
        "http.response_time.intended": Summary(min=0.201, max=12.496, mean=2.602, p50=1.37, p95=2.663, count=39500),
        "http.response_time": Summary(min=0.101, max=11.496, mean=1.602, p50=0.206, p95=1.663, count=39500),
    }


def test_wrk2_without_latency_is_known_by_its_calibration():
    text = (
        "  Thread calibration: mean lat.: 9747 usec, rate sampling interval: 21 msec\n"
        "    Latency     6.46ms    1.93ms  12.34ms   67.66%\n"
        "  60017 requests in 30.01s, 19.81MB read\nRequests/sec:   2000.15\n"
    )
    (report,) = read(text, "x")
    assert report.aggregate.summaries == {"http.response_time.intended": Summary(max=12.34, mean=6.46)}


K6 = "     http_reqs......: 10   5/s\n"


@pytest.mark.parametrize(
    ("printed", "figures"),
    [
        # A terminal cut the line off.
        ("avg=14.56ms min=10.25ms p(90)=18.9ms p(95)=21.44m", {"mean": 14.56, "min": 10.25, "p90": 18.9}),
        ("avg=14.56ms min=10.25ms p(90)=18.9ms p(95)=21.4", {"mean": 14.56, "min": 10.25, "p90": 18.9}),
        ("avg=2.02s max=1m3", {"mean": 2020.0}),
        ("avg=2.02s max=1m3.5s", {"mean": 2020.0, "max": 63_500.0}),
        # Its "µ" went through a console of Windows, or through Latin-1.
        ("avg=7.27┬╡s med=7.27┬Ás max=7.27Âµs min=7.27\ufffds", dict.fromkeys(("mean", "p50", "max", "min"), 0.00727)),
        # --summary-trend-stats with a count.
        ("avg=10.39µs count=12 p(99)=1ms", {"mean": 0.01039, "p99": 1.0}),
    ],
)
def test_k6s_times_are_read_or_left_out(printed, figures):
    (report,) = read(f"{K6}     http_req_duration..............: {printed}\n", "x")
    assert report.aggregate.summaries["http.response_time"] == Summary(**figures, count=10)


def test_k6s_marks_may_have_become_other_letters():
    (report,) = read(f"{K6}   Γ£ô checks.........................: 100.00% Γ£ô 3683      Γ£ù 7\n", "x")
    assert report.aggregate.counters["checks.succeeded"] == 3683 and report.aggregate.counters["checks.failed"] == 7


def test_what_stands_below_artillery_1s_codes_is_no_code():
    text = "Summary report @ 11:42:53(-0800) 2020-11-13\n  Scenarios launched:  1\n  Codes:\n    200: 1 (100%)\n\n"
    below = "Started phase 0, duration: 1s @ 11:42:56(-0800) 2020-11-13\n  Elapsed: 3\n"
    (report,) = read(text + below, "x")
    assert report.aggregate.counters == {"vusers.created": 1, "http.codes.200": 1}


OHA = """{"summary": {"successRate": 0.99, "total": 2.0, "slowest": 0.016, "fastest": 0.0003, "average": 0.002,
 "requestsPerSec": 99.5, "totalData": 10, "sizePerRequest": null}, "responseTimeHistogram": {"0.0003": 1},
 "latencyPercentiles": {"p10": 0.0006, "p50": 0.001, "p99": 0.0098, "p99.9": 0.015, "p99.99": null},
 "statusCodeDistribution": {"200": 195, "503": 3}, "errorDistribution": {"aborted due to deadline": 2}}"""


def test_ohas_json_is_read_in_ms():
    (report,) = read(OHA, "x")
    assert report.aggregate.counters == {
        "http.requests": 198, "http.responses": 198, "http.codes.200": 195, "http.codes.503": 3,
    }  # fmt: skip
    assert report.aggregate.summaries == {
        "http.response_time": Summary(min=0.3, mean=2.0, max=16.0, p50=1.0, p99=9.8, p999=15.0, count=198)
    }
    assert report.aggregate.rates == {"http.request_rate": Rate(99.5)}


def test_requests_that_the_end_of_ohas_run_cut_off_are_no_errors(golden):
    """One stands under way on each connection when the time is up; oha's own success rate leaves them out."""
    text = (golden / "others" / "oha.txt").read_text()
    before, heading, errors = text.partition("Error distribution:\n")
    cut_off = f"{before}{heading}  [32] aborted due to deadline\n{errors}"
    assert read(cut_off, "x")[0].aggregate == read(text, "x")[0].aggregate
    others = OHA.replace('"aborted due to deadline": 2', '"aborted due to deadline": 2, "connection closed": 1')
    counters = read(others, "x")[0].aggregate.counters
    assert counters["http.requests"] == 199
    assert {name for name in counters if name.startswith("errors.")} == {"errors.connection closed"}


@pytest.mark.parametrize("codes", ["", '"statusCodeStats":{},', '"statusCodeStats":null,'])
def test_autocannons_json_without_codes_tells_those_that_are_not_2xx(golden, codes):
    text = (golden / "others" / "autocannon.json").read_text()
    stats = '"statusCodeStats":{"200":{"count":116},"503":{"count":19}},'
    assert stats in text
    counters = read(text.replace(stats, codes), "x")[0].aggregate.counters
    assert counters == {
        "http.requests": 138, "http.responses": 135, "http.responses.2xx": 116, "errors.non 2xx": 19, "errors.failed": 2,
        "errors.timeout": 1,
    }  # fmt: skip


TRANSACTION = "Number of samples in transaction : 2, number of failing samples : 1"


def test_a_transaction_in_jmeters_csv_is_no_request():
    heading = "timeStamp,elapsed,label,responseCode,responseMessage,threadName,success\n"
    requests = "1000,5,login,200,OK,t 1,true\n1010,7,buy,503,Unavailable,t 1,false\n"
    transaction = f'990,30,order,,"{TRANSACTION}",t 1,false\n'
    assert read(heading + requests + transaction, "x") == read(heading + requests, "x")
    # With `generate parent sample`, a file has nothing else.
    assert read(heading + transaction, "x")[0].aggregate.counters == {
        "http.requests": 1, f"errors.{TRANSACTION}": 1,
    }  # fmt: skip


@pytest.mark.parametrize("nested", [False, True])
def test_of_a_transaction_in_jmeters_xml_the_samples_inside_are_counted(nested):
    inner = '<httpSample t="5" ts="1000" s="true" lb="login" rc="200" rm="OK"><httpSample t="2" ts="1000" s="true" rc="200"/>'
    requests = f'{inner}</httpSample><httpSample t="7" ts="1010" s="false" lb="buy" rc="503" rm="Unavailable"/>'
    head = f'<sample t="30" ts="990" s="false" lb="order" rc="" rm="{TRANSACTION}">'
    body = f"{head}{requests}</sample>" if nested else f"{requests}{head}</sample>"
    (report,) = read(
        f'<?xml version="1.0"?>\n<testResults version="1.2">\n{body}\n{head}{body}</sample></testResults>', "x"
    )
    assert report.aggregate.counters == {
        "http.requests": 4, "http.responses": 4, "http.codes.200": 2, "http.codes.503": 2, "errors.503": 2,
    }  # fmt: skip


JTL = """<?xml version="1.0" encoding="UTF-8"?>
<testResults version="1.2">
<httpSample t="55" lt="24" ts="1506112408625" s="true" lb="Home &amp; more" rc="200" rm="OK" tn="1-1" by="9">
  <httpSample t="26" lt="24" ts="1506112408625" s="true" lb="http://x/" rc="200" rm="OK"/>
  <java.net.URL>http://x/</java.net.URL>
</httpSample>
<sample t="7" ts="1506112419000" s="false" lb="Buy" rc="" rm="Connection refused"/>
"""


@pytest.mark.parametrize("end", ["</testResults>\n", "", "<httpSample t='9' ts='15061"])
def test_jmeters_xml_is_read_without_the_parts_of_samples_and_without_its_end(end):
    (report,) = read(JTL + end, "x")
    assert report.extras.partial == (end != "</testResults>\n") and len(report.periods) == 2
    assert report.aggregate.counters == {
        "http.requests": 2, "http.responses": 1, "http.codes.200": 1, "errors.Connection refused": 1,
    }  # fmt: skip
    assert report.aggregate.summaries["plugins.metrics-by-endpoint.response_time.Home & more"].max == 55


def test_an_external_entity_is_not_read(tmp_path):
    (tmp_path / "secret").write_text("secret")
    entity = f'<!DOCTYPE testResults [<!ENTITY x SYSTEM "file://{tmp_path}/secret">]><testResults>'
    text = JTL.replace("<testResults version", f"{entity}<testResults version").replace('rm="OK"', 'rm="&x;"')
    with pytest.raises(ReportError) as refused:
        read(text, "x")
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_jmeters_last_line_may_be_cut_off(golden, delimiter):
    text = (golden / "others" / "jmeter.jtl").read_text().replace(",", delimiter)
    (whole,), (cut,) = read(text, "x"), read(text + text.splitlines()[-1][:20], "x")
    assert cut.aggregate == whole.aggregate and cut.extras.partial and not whole.extras.partial


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("<!DOCTYPE html>\n<title>Locust</title>", "it is a page of Locust; its CSV files"),
        ('{"type":"Metric","data":{},"metric":"vus"}\n{"metric":"vus"}', "it is k6's stream of samples (--out json)"),
        ("response-time,DNS+dialup,DNS,Request-write\n0.1,0,0,0\n", "it is hey's list of requests (-o csv)"),
        ("Bucket         #     %       Histogram\n[0s,    2ms]   6007  60.07%  ####\n", "it is vegeta's histogram"),
        ("---- Global Information ------\n> request count   20 (OK=20 KO=0)\n", "it is a report of Gatling"),
        (
            "Summary:\n  Count:\t200\n  Total:\t89.54 ms\n  Slowest:\t1 ms\n  Fastest:\t1 ms\n  Requests/sec:\t2\n",
            "ghz",
        ),
        ('{"count": 1, "latencyDistribution": [], "histogram": [], "statusCodeDistribution": {"OK": 1}}', "ghz"),
        ("  \n", "it is empty"),
        ("PK\x03\x04\0\0", "it is not text"),
    ],
)
def test_what_is_known_and_not_read_is_refused_by_name(text, said):
    with pytest.raises(ReportError) as refused:
        read(text, "x")
    assert said in str(refused.value) and "\n" not in str(refused.value)


def test_a_document_nested_too_deeply_is_refused_in_one_line():
    for text in ('{"a":' * 200_000, '{"a":' * 200_000 + "\n{"):
        with pytest.raises(ReportError, match=r"^x: [^\n]+$"):
            read(text, "x")


def test_a_report_of_several_that_is_cut_off_is_named(golden):
    text = (golden / "wrk" / "plain.txt").read_text()
    with pytest.raises(ReportError, match="report 2 of 2 is cut off"):
        read(text + "".join(text.splitlines(keepends=True)[:-2]), "x")


def test_a_line_of_k6_that_prose_quotes_is_no_report(golden):
    text = (golden / "others" / "k6.txt").read_text()
    quoted = "The 95th percentile was high:\n\nhttp_req_duration...: avg=9.81ms p(95)=41.07ms\n\nThat is all.\n"
    assert read(text + quoted, "x") == read(text, "x")


@pytest.mark.parametrize("end", ["00:00:00", "00:00:07", "00:00:15"])
def test_an_artillery_that_began_before_midnight_is_read(end):
    hour, minute, second = end.split(":")
    texts = [
        f"Metrics for period to: {hour}:{minute}:{int(second) + more:02}\nhttp.requests: .......... 3\n"
        for more in (0, 10)
    ]
    (report,) = read("".join(texts) + "Summary report @ 00:00:30\nhttp.requests: .......... 6\n", "x")
    first, second = (period.start_ms for period in report.periods)
    assert 0 <= first == second - 10_000


@pytest.mark.parametrize("blank", ["", "  ", "\t"])
def test_blank_lines_within_a_table_are_no_rows(golden, blank):
    for name in ("jmeter.jtl", "locust-history.csv", "locust-failures.csv"):
        lines = (golden / "others" / name).read_text().splitlines()
        assert read(f"\n{blank}\n".join(lines), "x")[0].aggregate == load(golden / "others" / name).aggregate


@pytest.mark.parametrize("odd", ["\u2028", "\u2029", "\x85", "\x0c", "\x0b", "\x1c", "\x1e"])
def test_a_name_may_hold_what_other_programs_take_for_the_end_of_a_line(golden, odd):
    jmeter = (golden / "others" / "jmeter.jtl").read_text().replace(",home,", f",ho{odd}me,")
    times = read(jmeter, "x")[0].aggregate.summaries
    assert times[f"plugins.metrics-by-endpoint.response_time.ho{odd}me"].count == 2

    locust = (golden / "others" / "locust-failures.csv").read_text().replace("HTTPError(", f"HTTP{odd}Error(")
    assert read(locust, "x")[0].aggregate.counters == {f"errors.HTTP{odd}Error('503')": 5}

    console = f"Summary report @ 16:55:00(+0000)\nhttp.requests: .......... 7\nerrors.a{odd}b.c: .......... 3\n"
    assert read(console, "x")[0].aggregate.counters == {"http.requests": 7, "errors.a b.c": 3}
