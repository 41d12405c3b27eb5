package main

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/vmware/govmomi/vim25/methods"
	"github.com/vmware/govmomi/vim25/soap"
	"github.com/vmware/govmomi/vim25/types"
)

func TestOneChangeIsOneUpdateOfOneObject(t *testing.T) {
	f := start(t)
	w := f.watch(f.client, "VirtualMachine", "name", "config.hardware.device")
	if first := w.next(0); len(first) != 2 {
		t.Fatalf("first answer has %d objects", len(first))
	}
	r, err := f.reconfigure(f.vm("guest"), types.VirtualMachineConfigSpec{Name: "visitor"})
	f.done(r, err)
	updates := w.next(5)
	if len(updates) != 1 || updates[0].Kind != types.ObjectUpdateKindModify || !value("name", "visitor")(updates[0]) {
		t.Errorf("updates %+v", updates)
	}
}

func TestNewVmEntersAViewAndADeletedOneLeaves(t *testing.T) {
	f := start(t)
	w := f.watch(f.client, "VirtualMachine", "name", "runtime.host", "config.hardware.device")
	w.next(0)
	vm := f.createVM("made", "esx-b")
	w.until("enter", func(u types.ObjectUpdate) bool { return u.Kind == types.ObjectUpdateKindEnter && u.Obj == vm })
	res, err := methods.Destroy_Task(f.ctx, f.client, &types.Destroy_Task{This: vm})
	if err != nil {
		t.Fatal(err)
	}
	f.done(res.Returnval, nil)
	w.until("leave", func(u types.ObjectUpdate) bool { return u.Kind == types.ObjectUpdateKindLeave && u.Obj == vm })
}

func TestTwoSessionsGetTheSameUpdates(t *testing.T) {
	f := start(t)
	second := f.login(f.server.ready.VCenter.Address, "admin", "secret")
	a, b := f.watch(f.client, "VirtualMachine", "name"), f.watch(second, "VirtualMachine", "name")
	a.next(0)
	b.next(0)
	r, err := f.reconfigure(f.vm("guest"), types.VirtualMachineConfigSpec{Name: "visitor"})
	f.done(r, err)
	a.until("in the first session", value("name", "visitor"))
	b.until("in the second session", value("name", "visitor"))
}

func TestUnknownVersionIsRefused(t *testing.T) {
	f := start(t)
	w := f.watch(f.client, "VirtualMachine", "name")
	w.next(0)
	_, err := methods.WaitForUpdatesEx(f.ctx, f.client, &types.WaitForUpdatesEx{This: w.collector, Version: "77"})
	if err == nil || !soap.IsSoapFault(err) {
		t.Fatalf("error %v", err)
	}
	if _, ok := soap.ToSoapFault(err).VimFault().(types.InvalidCollectorVersion); !ok {
		t.Errorf("fault %T", soap.ToSoapFault(err).VimFault())
	}
}

func TestLargeAnswersComeInPages(t *testing.T) {
	f := start(t)
	w := f.watch(f.client, "DistributedVirtualPortgroup", "name")
	res, err := methods.WaitForUpdatesEx(f.ctx, f.client, &types.WaitForUpdatesEx{
		This: w.collector, Options: &types.WaitOptions{MaxObjectUpdates: 2},
	})
	if err != nil {
		t.Fatal(err)
	}
	if res.Returnval.Truncated == nil || !*res.Returnval.Truncated || len(res.Returnval.FilterSet[0].ObjectSet) != 2 {
		t.Fatalf("first page %+v", res.Returnval)
	}
	w.version = res.Returnval.Version
	if rest := w.next(1); len(rest) != 1 {
		t.Errorf("second page has %d objects", len(rest))
	}
}

func TestCheckForUpdatesIsNeverTruncated(t *testing.T) {
	f := start(t)
	const number = 120 // more than a page
	specs := make([]types.DVPortgroupConfigSpec, number)
	for i := range specs {
		specs[i] = types.DVPortgroupConfigSpec{Name: fmt.Sprintf("many-%d", i), Type: "earlyBinding", NumPorts: 1}
	}
	add, err := methods.AddDVPortgroup_Task(f.ctx, f.client, &types.AddDVPortgroup_Task{This: f.dvs().Self, Spec: specs})
	if err != nil {
		t.Fatal(err)
	}
	f.done(add.Returnval, nil)
	w := f.watch(f.client, "DistributedVirtualPortgroup", "name")
	res, err := methods.CheckForUpdates(f.ctx, f.client, &types.CheckForUpdates{This: w.collector})
	if err != nil {
		t.Fatal(err)
	}
	if set := res.Returnval; set.Truncated != nil && *set.Truncated || len(set.FilterSet[0].ObjectSet) < number {
		t.Errorf("%d objects, truncated %v", len(set.FilterSet[0].ObjectSet), set.Truncated)
	}
	w.version = res.Returnval.Version
	w.next(0)
}

func TestWaitEndsWhenItIsCancelled(t *testing.T) {
	f := start(t)
	w := f.watch(f.client, "VirtualMachine", "name")
	w.next(0)
	ended := make(chan error, 1)
	go func() {
		_, err := methods.WaitForUpdatesEx(f.ctx, f.client, &types.WaitForUpdatesEx{This: w.collector, Version: w.version})
		ended <- err
	}()
	for {
		if _, err := methods.CancelWaitForUpdates(f.ctx, f.client, &types.CancelWaitForUpdates{This: w.collector}); err != nil {
			t.Fatal(err)
		}
		select {
		case err := <-ended:
			if _, ok := soap.ToSoapFault(err).VimFault().(types.RequestCanceled); !ok {
				t.Errorf("fault %v", err)
			}
			return
		case <-time.After(10 * time.Millisecond):
		}
	}
}

func TestWaitEndsWithItsSession(t *testing.T) {
	f := start(t)
	w := f.watch(f.client, "VirtualMachine", "name")
	w.next(0)
	ended := make(chan error, 1)
	go func() {
		_, err := methods.WaitForUpdatesEx(context.Background(), f.client, &types.WaitForUpdatesEx{This: w.collector, Version: w.version})
		ended <- err
	}()
	if status, answer := f.control("POST", "/sessions/expire?at=vcenter", nil); status != 200 || answer.(map[string]any)["expired"] != 1.0 {
		t.Fatalf("expire: %d %v", status, answer)
	}
	select {
	case err := <-ended:
		if err == nil || !soap.IsSoapFault(err) {
			t.Errorf("error %v", err)
		}
	case <-time.After(5 * time.Second):
		t.Error("the call still waits")
	}
}

func TestUnsetPropertyIsAnsweredWithNothing(t *testing.T) {
	f := start(t)
	for _, path := range []string{"snapshot", "parentVApp"} {
		answer := f.post(`<Fetch xmlns="urn:vim25"><_this type="VirtualMachine">` + f.vm("guest").Value + `</_this><prop>` + path + `</prop></Fetch>`)
		if want := "<FetchResponse xmlns=\"urn:vim25\"></FetchResponse>"; !contains(answer, want) {
			t.Errorf("%s: %s", path, answer)
		}
	}
}

func TestCollectorThatIsRemovedStopsListening(t *testing.T) {
	f := start(t)
	c := &collector{}
	c.Self = ref{Type: "PropertyCollector", Value: "probe"}
	ctx := f.server.v.newContext()
	c.start(ctx)
	f.server.v.registry.Remove(ctx, c.Self) // what the simulator does at logout
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.listener != nil || !c.closed {
		t.Error("the collector still listens")
	}
}
