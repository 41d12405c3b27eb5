package main

import (
	"net/http"
	"strconv"
	"testing"
	"time"

	"github.com/vmware/govmomi/vim25/types"
)

// nic returns a VM's first NIC on a network from the table, and the generation.
func (f *fixture) nic(vm, network string) (map[string]any, float64) {
	f.t.Helper()
	_, answer := f.control("GET", "/nics", nil)
	table := answer.(map[string]any)
	for _, n := range table["nics"].([]any) {
		if nic := n.(map[string]any); nic["vm_name"] == vm && nic["network"] == network {
			return nic, table["generation"].(float64)
		}
	}
	f.t.Fatalf("no NIC of %s on %s in %v", vm, network, table)
	return nil, 0
}

func TestNicTableShowsWhatDecidesAboutFrames(t *testing.T) {
	f := start(t)
	guest, _ := f.nic("guest", "office")
	port := f.portOf(f.vm("guest"), firstNicKey)
	for key, want := range map[string]any{
		"vm": f.vm("guest").Value, "host": "esx-a", "power": "poweredOn", "device_key": 4000.0, "connected": true,
		"switch": "dvs", "dvs": "dvs-tf", "portgroup_key": f.pg("office").Value, "dvport_key": port.Key,
		"blocked": false, "link_up": true, "forged_transmits": false, "mac_changes": false, "promiscuous": false,
	} {
		if guest[key] != want {
			t.Errorf("%s: %v, want %v", key, guest[key], want)
		}
	}
	if access := guest["vlan"].(map[string]any)["access"]; access != 700.0 {
		t.Errorf("VLAN %v", access)
	}
	trunk, _ := f.nic("vrouter-a", "tf-trunk")
	if ranges := trunk["vlan"].(map[string]any)["trunk"].([]any); len(ranges) != 1 || trunk["mac"] != "00:50:56:00:00:01" {
		t.Errorf("trunk %v", trunk)
	}
	management, _ := f.nic("vrouter-a", "VM Network")
	if management["switch"] != "standard" || management["link_up"] != true || management["vlan"] != nil {
		t.Errorf("management NIC %v", management)
	}
}

func TestLongPollAnswersAtTheNextChange(t *testing.T) {
	f := start(t)
	key := attached(f).Key
	changes := map[string]func(){
		"VLAN and block": func() {
			spec := vlanSpec(key, 42)
			spec.Setting.(*types.VMwareDVSPortSetting).Blocked = &types.BoolPolicy{Value: types.NewBool(true)}
			r, err := f.setPorts(spec)
			f.done(r, err)
		},
		"vMotion": func() {
			r, err := f.migrate(f.vm("guest"), f.host("esx-b"))
			f.done(r, err)
		},
		"defaults of the portgroup": func() {
			r, err := f.setPortgroup(f.pg("blue"), types.DVPortgroupConfigSpec{Description: "x"})
			f.done(r, err)
		},
	}
	for name, change := range changes {
		t.Run(name, func(t *testing.T) {
			_, before := f.nic("guest", "blue")
			changed := make(chan struct{})
			go func() {
				defer close(changed)
				_, answer := f.control("GET", "/nics?wait_s=20&after="+strconv.Itoa(int(before)), nil)
				if got := answer.(map[string]any)["generation"].(float64); got <= before {
					t.Errorf("generation %v after %v", got, before)
				}
			}()
			change()
			select {
			case <-changed:
			case <-time.After(10 * time.Second):
				t.Error("no answer")
			}
		})
	}
	nic, _ := f.nic("guest", "blue")
	if nic["blocked"] != true || nic["vlan"].(map[string]any)["access"] != 42.0 || nic["host"] != "esx-b" {
		t.Errorf("NIC %v", nic)
	}
}

func TestLongPollEndsWithItsTime(t *testing.T) {
	f := start(t)
	_, before := f.nic("guest", "office")
	begin := time.Now()
	_, answer := f.control("GET", "/nics?wait_s=0.2&after="+strconv.Itoa(int(before)), nil)
	if took := time.Since(begin); took < 200*time.Millisecond || answer.(map[string]any)["generation"] != before {
		t.Errorf("answer after %v: %v", took, answer)
	}
}

func TestUnchangedVmMakesNoNewGeneration(t *testing.T) {
	f := start(t)
	_, before := f.nic("guest", "office")
	r, err := f.reconfigure(f.vm("guest"), types.VirtualMachineConfigSpec{Annotation: "noted"})
	f.done(r, err)
	if _, after := f.nic("guest", "office"); after != before {
		t.Errorf("generation %v after %v", after, before)
	}
}

func TestControlRefusesNonsense(t *testing.T) {
	f := start(t)
	for path, body := range map[string]any{
		"/latency":                   map[string]any{"ms": -1},
		"/migration-delay":           map[string]any{"seconds": 1},
		"/sessions/expire?at=nobody": nil,
	} {
		if status, answer := f.control("POST", path, body); status != http.StatusBadRequest {
			t.Errorf("%s: %d %v", path, status, answer)
		}
	}
	for _, path := range []string{"/nics?after=x", "/nics?wait_s=-1"} {
		if status, _ := f.control("GET", path, nil); status != http.StatusBadRequest {
			t.Errorf("%s: %d", path, status)
		}
	}
}

func TestSessionsAreCountedByEndpoint(t *testing.T) {
	f := start(t)
	f.esxi("esx-b")
	_, counts := f.control("GET", "/sessions", nil)
	for at, want := range map[string]float64{"vcenter": 1, "esx-a": 0, "esx-b": 1} {
		if got := counts.(map[string]any)[at]; got != want {
			t.Errorf("%s: %v, want %v", at, got, want)
		}
	}
	f.control("POST", "/sessions/expire?at=esx-b", nil)
	_, counts = f.control("GET", "/sessions", nil)
	if got := counts.(map[string]any)["esx-b"]; got != 0.0 {
		t.Errorf("%v sessions after the expiry", got)
	}
}
