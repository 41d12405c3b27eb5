package main

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/vmware/govmomi/vim25"
	"github.com/vmware/govmomi/vim25/methods"
	"github.com/vmware/govmomi/vim25/types"
)

// clock asks an endpoint for its time, for as long as the timeout.
func (f *fixture) clock(c *vim25.Client, timeout time.Duration) error {
	ctx, cancel := context.WithTimeout(f.ctx, timeout)
	defer cancel()
	_, err := methods.CurrentTime(ctx, c, &types.CurrentTime{This: vim25.ServiceInstance})
	return err
}

func TestFrozenEndpointIsSilentUntilItThaws(t *testing.T) {
	f := start(t)
	esx := f.esxi("esx-a")
	f.control("POST", "/freeze", map[string]string{"at": "vcenter"})
	if err := f.clock(f.client, 300*time.Millisecond); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("frozen, it said %v", err)
	}
	if err := f.clock(esx, 10*time.Second); err != nil {
		t.Errorf("another endpoint: %v", err)
	}
	f.control("POST", "/thaw", map[string]string{"at": "vcenter"})
	if err := f.clock(f.client, 10*time.Second); err != nil {
		t.Errorf("thawed: %v", err)
	}
}

func TestFrostComesOverWaitsThatAreUnderWay(t *testing.T) {
	f := start(t)
	w := f.watch(f.client, "VirtualMachine", "name")
	w.next(0)
	outcome := make(chan error, 1)
	ctx, cancel := context.WithCancel(f.ctx)
	defer cancel()
	most := int32(1)
	go func() {
		_, err := methods.WaitForUpdatesEx(ctx, f.client, &types.WaitForUpdatesEx{
			This: w.collector, Version: w.version, Options: &types.WaitOptions{MaxWaitSeconds: &most},
		})
		outcome <- err
	}()
	f.control("POST", "/freeze", map[string]string{"at": "vcenter"})
	select {
	case err := <-outcome:
		t.Errorf("frozen, the wait ended with %v", err)
	case <-time.After(2 * time.Second):
	}
	f.control("POST", "/thaw", map[string]string{"at": "vcenter"})
	if err := <-outcome; err == nil {
		t.Error("the answer that was due in the frost came after it")
	}
}

func TestFreezeKnowsItsEndpoints(t *testing.T) {
	f := start(t)
	if status, answer := f.control("POST", "/freeze", map[string]string{"at": "esx-z"}); status != 400 {
		t.Errorf("status %d: %v", status, answer)
	}
}

func TestPortsKeepTheirOverridesWhereVcenterDoesNotReset(t *testing.T) {
	f := start(t)
	if status, _ := f.control("POST", "/port-reset", map[string]any{}); status != 400 {
		t.Errorf("status %d", status)
	}
	f.control("POST", "/port-reset", map[string]bool{"on": false})
	pg := f.addPortgroup(types.DVPortgroupConfigSpec{Name: "blue", NumPorts: 1})
	vm := f.vm("guest")
	r, err := f.reconfigure(vm, addNic(f.onPortgroup(pg)))
	f.done(r, err)
	key := f.portOf(vm, firstNicKey+1).Key
	r, err = f.setPorts(vlanSpec(key, 77))
	f.done(r, err)
	r, err = f.edit(vm, firstNicKey+1, func(c *types.VirtualEthernetCard) { c.Backing = f.onPortgroup(f.pg("office")) })
	f.done(r, err)
	if p := f.port(key); vlanOf(p) != 77 || p.Connectee != nil {
		t.Errorf("VLAN %d, connectee %v", vlanOf(p), p.Connectee)
	}
}
