//! What suites print.

pub(super) const KTAP: &str = "KTAP version 1
1..3
  KTAP version 1
  1..2
    KTAP version 1
    1..1
    # test_1: initializing test_1
    ok 1 test_1
  ok 1 example_test_1
  ok 2 example_test_2 # SKIP no device
ok 1 main_test_1
# test_2: FAIL
not ok 2 main_test_2
not ok 3 - main_test_3 # XFAIL not yet
";

pub(super) const TAP14: &str = "TAP version 14
# Subtest: foo.tap
    1..2
    ok 1
    ok 2 - this passed
ok 1 - foo.tap # time=12ms
not ok 2 - escaped \\# hash
  ---
  message: 'ok 3 is no result'
  ...
not ok 3 - later # TODO unwritten
ok 4 - early # todo
1..4
";

pub(super) const RUNNER: &str = "TAP version 13
1..2
# timeout set to 45
# selftests: net: tls
# TAP version 13
# 1..2
# ok 1 global.one
# not ok 2 global.two
not ok 1 selftests: net: tls # exit=1
ok 2 selftests: net: x.sh # SKIP
";

pub(super) const SHELL: &str = "
IPv4 rule tests
    TEST: rule4 check: oif dummy0                                [ OK ]
    TEST: rule4 dsfield udp connect (dsfield 0x05)               [FAIL]
\tgot 1, wanted 2
    TEST: rule4 dsfield udp connect (dsfield 0x05)               [ OK ]
TEST: vlan over bond                                             [SKIP]
\tethtool is too old
TEST: known one                                                  [XFAIL]
PASS: policy routing
FAIL: rule with pref
ping4 with peer gro                                             ok
udp gro - all                  fail - expected 1 got 2
all tests done
";

pub(super) const GO: &str = "=== RUN   TestA
=== RUN   TestA/sub_one
    a_test.go:10: wanted 1
=== RUN   TestA/sub_two
--- FAIL: TestA (0.05s)
    --- FAIL: TestA/sub_one (0.01s)
    --- PASS: TestA/sub_two (0.00s)
=== RUN   TestB
    b_test.go:3: no netkit
--- SKIP: TestB (0.00s)
FAIL
exit status 1
";

pub(super) const GO_JSON: &str = r#"{"Action":"start","Package":"p"}
{"Action":"run","Package":"p","Test":"TestA"}
{"Action":"output","Package":"p","Test":"TestA","Output":"=== RUN   TestA\n"}
{"Action":"output","Package":"p","Test":"TestA","Output":"    a_test.go:10: wanted 1\n"}
{"Action":"output","Package":"p","Test":"TestA","Output":"--- FAIL: TestA (0.00s)\n"}
{"Action":"fail","Package":"p","Test":"TestA","Elapsed":0.5}
{"Action":"output","Package":"p","Output":"FAIL\n"}
{"Action":"fail","Package":"p","Elapsed":0.6}
"#;

pub(super) const LIBTEST: &str = "
running 4 tests
test map::pins ... ok
test map::late - should panic ... ok <0.010s>
test tc::attach ... FAILED
test xdp::load ... ignored, needs a device

failures:

---- tc::attach stdout ----
thread 'tc::attach' panicked at tests/test.rs:4:5:
no tcx

failures:
    tc::attach

test result: FAILED. 2 passed; 1 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.02s
";

pub(super) const LIBTEST_JSON: &str = r#"{ "type": "suite", "event": "started", "test_count": 3 }
{ "type": "test", "event": "started", "name": "a" }
{ "type": "test", "name": "a", "event": "ok", "exec_time": 0.25 }
{ "type": "test", "event": "started", "name": "b" }
{ "type": "test", "name": "b", "event": "failed", "stdout": "no tcx\n" }
{ "type": "test", "name": "c", "event": "ignored", "message": "slow" }
{ "type": "suite", "event": "failed", "passed": 1, "failed": 1, "ignored": 1, "measured": 0, "filtered_out": 0 }
"#;

pub(super) const TEST_PROGS: &str = "#41/1    tc_redirect/tc_redirect_peer:OK
#41/2    tc_redirect/tc_redirect_peer:OK
#41      tc_redirect:OK
run_test:FAIL:attach 1 != 2
run_test:PASS:close 0 nsec
#44/1    cls_redirect/IPv4 TCP (flags: SYN):FAIL
#44      cls_redirect:FAIL
#45      empty_skb:SKIP

All error logs:
run_test:FAIL:attach 1 != 2
#44/1    cls_redirect/IPv4 TCP (flags: SYN):FAIL
#44      cls_redirect:FAIL
Summary: 1/2 PASSED, 1 SKIPPED, 1 FAILED
";

pub(super) const PYTEST: &str = "============ test session starts ============
platform linux -- Python 3.11.2, pytest-7.2.1
collecting ... collected 5 items

tests/test_a.py::test_ok PASSED                         [ 20%]
tests/test_a.py::test_params[a b-PASSED] FAILED         [ 40%]
tests/test_a.py::TestC::test_skip SKIPPED (no netkit)   [ 60%]
tests/test_b.py::test_x XFAIL (later)                   [ 80%]
tests/test_b.py::test_y XPASS                           [100%]

================= FAILURES ==================
___________ test_params[a b-PASSED] ___________

    def test_params(a):
>       assert 1 == 2
E       assert 1 == 2
=========== short test summary info ===========
FAILED tests/test_a.py::test_params[a b-PASSED] - assert 1 == 2
==== 1 failed, 1 passed, 1 skipped, 1 xfailed, 1 xpassed in 0.10s ====
";

pub(super) const CTEST: &str = "Test project /tmp/b
    Start 1: plain
1/3 Test #1: plain ............................   Passed    0.01 sec
    Start 2: two words
2/3 Test #2: two words ........................***Failed    0.02 sec
    Start 3: absent
3/3 Test #3: absent ...........................***Skipped   0.00 sec

67% tests passed, 1 tests failed out of 3
";

pub(super) const JUNIT: &str = r#"noise
<?xml version="1.0"?>
<testsuites tests="4" failures="1"><testsuite name="s" tests="4" failures="1" errors="0" skipped="1">
<properties><property name="x" value="y"/></properties>
<testcase classname="tests.a" name="one" time="0.5" file="tests/a.py"/>
<testcase classname="tests.a" name="two &amp; more"><failure message="wanted 1 &lt; 2">trace</failure></testcase>
<testcase classname="tests.a" name="three"><skipped/></testcase>
<testcase classname="tests.a" name="four"><system-out><![CDATA[hello]]></system-out></testcase>
</testsuite></testsuites>
"#;
