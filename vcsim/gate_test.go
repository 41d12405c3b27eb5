package main

import (
	"testing"

	"github.com/vmware/govmomi/vim25/mo"
	"github.com/vmware/govmomi/vim25/types"
)

func TestHeldUpdatesComeTogetherAtTheRelease(t *testing.T) {
	f := start(t)
	vm := f.vm("guest")
	atVcenter := f.watch(f.client, "VirtualMachine", "config.annotation")
	atHost := f.watch(f.esxi("esx-a"), "VirtualMachine", "config.annotation")
	atVcenter.next(0)
	atHost.next(0)
	f.control("POST", "/updates/hold", nil)
	for _, text := range []string{"one", "two"} {
		r, err := f.reconfigure(vm, types.VirtualMachineConfigSpec{Annotation: text})
		f.done(r, err)
	}
	f.server.v.worker.sync()
	if u := atVcenter.next(1); len(u) != 0 {
		t.Errorf("vCenter delivered %+v", u)
	}
	if u := atHost.next(1); len(u) != 0 {
		t.Errorf("the host delivered %+v", u)
	}
	var o mo.VirtualMachine
	f.read(f.client, vm, &o, "config.annotation")
	if o.Config.Annotation != "two" {
		t.Errorf("a full read shows %q", o.Config.Annotation)
	}
	f.control("POST", "/updates/release", nil)
	if u := atVcenter.next(5); len(u) != 1 || !value("config.annotation", "two")(u[0]) {
		t.Errorf("after the release: %+v", u)
	}
	atHost.until("annotation", value("config.annotation", "two"))
}

func TestTasksAreSeenWhileUpdatesAreHeld(t *testing.T) {
	f := start(t)
	f.control("POST", "/updates/hold", nil)
	f.control("POST", "/migration-delay", map[string]int{"ms": 300})
	r, err := f.migrate(f.vm("guest"), f.host("esx-b"))
	if err != nil {
		t.Fatal(err)
	}
	w := f.watchSet(f.client, types.ObjectSpec{Obj: r}, types.PropertySpec{Type: "Task", PathSet: []string{"info.state"}})
	w.until("success", value("info.state", types.TaskInfoStateSuccess))
}

func TestWaitingCallIsWokenByTheRelease(t *testing.T) {
	f := start(t)
	w := f.watch(f.client, "VirtualMachine", "name")
	w.next(0)
	f.control("POST", "/updates/hold", nil)
	r, err := f.reconfigure(f.vm("guest"), types.VirtualMachineConfigSpec{Name: "visitor"})
	f.done(r, err)
	got := make(chan []types.ObjectUpdate, 1)
	go func() { got <- w.next(20) }()
	select {
	case u := <-got:
		t.Fatalf("not held: %+v", u)
	default:
	}
	f.control("POST", "/updates/release", nil)
	select {
	case u := <-got:
		if len(u) != 1 {
			t.Errorf("updates %+v", u)
		}
	case <-f.ctx.Done():
		t.Error("the call still waits")
	}
}
