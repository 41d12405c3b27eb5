package main

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/vmware/govmomi/vim25/methods"
	"github.com/vmware/govmomi/vim25/soap"
	"github.com/vmware/govmomi/vim25/types"
)

func (f *fixture) rule(rule map[string]any) {
	f.t.Helper()
	if status, answer := f.control("POST", "/rules", rule); status != http.StatusOK {
		f.t.Fatalf("rule refused: %v", answer)
	}
}

func TestSoapRuleReturnsTheFaultAsOftenAsItSays(t *testing.T) {
	f := start(t)
	f.rule(map[string]any{"level": "soap", "method": "CurrentTime|Fetch.*", "fault": "RestrictedVersion", "skip": 1, "count": 1})
	for i, want := range []bool{true, false, true} {
		_, err := methods.GetCurrentTime(f.ctx, f.client)
		if (err == nil) != want {
			t.Errorf("call %d: %v", i, err)
		}
		if err != nil {
			if _, ok := soap.ToSoapFault(err).VimFault().(types.RestrictedVersion); !ok {
				t.Errorf("fault %T", soap.ToSoapFault(err).VimFault())
			}
		}
	}
	_, rules := f.control("GET", "/rules", nil)
	if hits := rules.([]any)[0].(map[string]any)["hits"]; hits != 3.0 {
		t.Errorf("hits %v", hits)
	}
}

func TestTaskRuleEndsTheTaskAndLeavesTheObject(t *testing.T) {
	f := start(t)
	key := attached(f).Key
	f.rule(map[string]any{
		"level": "task", "method": "ReconfigureDVPort_Task", "fault": "ResourceInUse", "count": 1,
		"fields": map[string]string{"type": "DistributedVirtualPort", "name": key},
	})
	r, err := f.setPorts(vlanSpec(key, 99))
	f.fails(&types.ResourceInUse{Type: "DistributedVirtualPort", Name: key}, r, err)
	if vlanOf(f.port(key)) != 0 {
		t.Error("the failed task changed the port")
	}
	r, err = f.setPorts(vlanSpec(key, 99))
	f.done(r, err)
}

func TestHttpRuleDropsBeforeOrAfterTheCall(t *testing.T) {
	for drop, applied := range map[string]bool{"before": false, "after": true} {
		t.Run(drop, func(t *testing.T) {
			f := start(t)
			key := attached(f).Key
			f.rule(map[string]any{"level": "http", "method": "ReconfigureDVPort_Task", "drop": drop, "count": 1})
			if _, err := f.setPorts(vlanSpec(key, 99)); err == nil || soap.IsSoapFault(err) {
				t.Errorf("error %v, want a lost connection", err)
			}
			want := map[bool]int32{false: 0, true: 99}[applied]
			deadline := time.Now().Add(5 * time.Second)
			for vlanOf(f.port(key)) != want && time.Now().Before(deadline) {
				time.Sleep(time.Millisecond)
			}
			if got := vlanOf(f.port(key)); got != want {
				t.Errorf("VLAN %d, want %d", got, want)
			}
		})
	}
}

func TestHttpRuleAnswersWithAStatus(t *testing.T) {
	f := start(t)
	f.rule(map[string]any{"level": "http", "method": "CurrentTime", "status": 503, "at": "*"})
	_, err := methods.GetCurrentTime(f.ctx, f.client)
	if err == nil || !strings.Contains(err.Error(), "503") {
		t.Errorf("error %v", err)
	}
}

func TestRuleActsAtItsEndpointAndOnItsObjectOnly(t *testing.T) {
	f := start(t)
	b := f.esxi("esx-b")
	f.rule(map[string]any{"level": "soap", "method": "CurrentTime", "fault": "NotSupported", "at": "esx-b"})
	if _, err := methods.GetCurrentTime(f.ctx, f.client); err != nil {
		t.Errorf("vCenter: %v", err)
	}
	if _, err := methods.GetCurrentTime(f.ctx, b); err == nil {
		t.Error("esx-b answers")
	}
	f.control("DELETE", "/rules", nil)
	if _, err := methods.GetCurrentTime(f.ctx, b); err != nil {
		t.Errorf("after the rules are gone: %v", err)
	}
	f.rule(map[string]any{"level": "soap", "method": "CurrentTime", "fault": "NotSupported", "object": "VirtualMachine:.*"})
	if _, err := methods.GetCurrentTime(f.ctx, f.client); err != nil {
		t.Errorf("another object: %v", err)
	}
}

func TestRulesDoNotHitDrivers(t *testing.T) {
	f := start(t)
	f.rule(map[string]any{"level": "http", "method": "CurrentTime", "status": 500})
	if answer := f.postAs("vcsim-admin", currentTime); !contains(answer, "CurrentTimeResponse") {
		t.Errorf("answer %s", answer)
	}
}

func TestRulesThatAreRefused(t *testing.T) {
	f := start(t)
	for part, rule := range map[string]map[string]any{
		"allowed are http, soap and task": {"level": "ip", "method": "x"},
		"no such vim25 type":              {"level": "soap", "method": "x", "fault": "Nonsense"},
		"the type is no fault":            {"level": "soap", "method": "x", "fault": "AboutInfo"},
		"method:":                         {"level": "soap", "method": "("},
		"allowed are before and after":    {"level": "http", "method": "x", "drop": "later"},
		"level http only":                 {"level": "soap", "method": "x", "status": 500},
		"levels soap and task only":       {"level": "http", "method": "x", "fault": "NotSupported"},
		"allowed are * and":               {"level": "soap", "method": "x", "at": "esx-z"},
		"unknown field":                   {"level": "soap", "methods": "x"},
	} {
		status, answer := f.control("POST", "/rules", rule)
		if status != http.StatusBadRequest || !contains(answer.(map[string]any)["error"].(string), part) {
			t.Errorf("%v: %d %v, want %q", rule, status, answer, part)
		}
	}
}
