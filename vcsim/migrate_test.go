package main

import (
	"slices"
	"testing"
	"time"

	"github.com/vmware/govmomi/vim25/methods"
	"github.com/vmware/govmomi/vim25/mo"
	"github.com/vmware/govmomi/vim25/types"
)

func (f *fixture) vmsOf(host ref) []ref {
	f.t.Helper()
	var h mo.HostSystem
	f.read(f.client, host, &h, "vm")
	return h.Vm
}

func TestVmotionMovesThePortAndTheLists(t *testing.T) {
	f := start(t)
	vm, a, b := f.vm("guest"), f.host("esx-a"), f.host("esx-b")
	before := f.portOf(vm, firstNicKey)
	r, err := f.migrate(vm, b)
	f.done(r, err)
	after := f.portOf(vm, firstNicKey)
	if after.Key != before.Key || *after.ProxyHost != b {
		t.Errorf("port %s on %v", after.Key, after.ProxyHost)
	}
	if slices.Contains(f.vmsOf(a), vm) || !slices.Contains(f.vmsOf(b), vm) {
		t.Errorf("lists %v and %v", f.vmsOf(a), f.vmsOf(b))
	}
}

func TestVmotionIsSeenThroughATraversalOfTheHost(t *testing.T) {
	f := start(t)
	vm, b := f.vm("guest"), f.host("esx-b")
	w := f.watchSet(f.client, types.ObjectSpec{Obj: b, SelectSet: []types.BaseSelectionSpec{
		&types.TraversalSpec{Type: "HostSystem", Path: "vm"},
	}}, types.PropertySpec{Type: "VirtualMachine", PathSet: []string{"name"}})
	w.next(0)
	r, err := f.migrate(vm, b)
	f.done(r, err)
	w.until("enter", func(u types.ObjectUpdate) bool { return u.Kind == types.ObjectUpdateKindEnter && u.Obj == vm })
	r, err = f.migrate(vm, f.host("esx-a"))
	f.done(r, err)
	w.until("leave", func(u types.ObjectUpdate) bool { return u.Kind == types.ObjectUpdateKindLeave && u.Obj == vm })
}

func TestNewVmsEnterTheListOfTheirHost(t *testing.T) {
	f := start(t)
	b := f.host("esx-b")
	w := f.watch(f.client, "HostSystem", "vm")
	w.next(0)
	listed := func(vm ref) func(types.ObjectUpdate) bool {
		return func(u types.ObjectUpdate) bool {
			for _, c := range u.ChangeSet {
				if l, ok := c.Val.(types.ArrayOfManagedObjectReference); ok && u.Obj == b && slices.Contains(l.ManagedObjectReference, vm) {
					return true
				}
			}
			return false
		}
	}
	w.until("created", listed(f.createVM("made", "esx-b")))
	folder, _ := f.createSpec("")
	res, err := methods.CloneVM_Task(f.ctx, f.client, &types.CloneVM_Task{
		This: f.vm("guest"), Folder: folder, Name: "clone",
		Spec: types.VirtualMachineCloneSpec{Location: types.VirtualMachineRelocateSpec{Host: &b}},
	})
	if err != nil {
		t.Fatal(err)
	}
	w.until("cloned", listed(f.done(res.Returnval, nil).(ref)))
}

func TestVmCanBeReadWhileItMoves(t *testing.T) {
	f := start(t)
	f.control("POST", "/migration-delay", map[string]int{"ms": 400})
	vm := f.vm("guest")
	r, err := f.migrate(vm, f.host("esx-b"))
	if err != nil {
		t.Fatal(err)
	}
	begin := time.Now()
	var o mo.VirtualMachine
	f.read(f.client, vm, &o, "runtime.host")
	if took := time.Since(begin); took > 300*time.Millisecond || *o.Runtime.Host != f.host("esx-a") {
		t.Errorf("read took %v and showed %v", took, o.Runtime.Host)
	}
	f.done(r, nil)
	var task mo.Task
	f.read(f.client, r, &task, "info")
	if task.Info.Name != "MigrateVM_Task" || *task.Info.Entity != vm {
		t.Errorf("task %+v", task.Info)
	}
}

func TestMovesThatAreRefused(t *testing.T) {
	f := start(t)
	nowhere := ref{Type: "HostSystem", Value: "host-999"}
	r, err := f.migrate(f.vm("guest"), nowhere)
	f.fails(&types.ManagedObjectNotFound{Obj: nowhere}, r, err)
	res, err := methods.MigrateVM_Task(f.ctx, f.client, &types.MigrateVM_Task{
		This: f.vm("guest"), Priority: types.VirtualMachineMovePriorityDefaultPriority,
		State: types.VirtualMachinePowerStatePoweredOff,
	})
	if err != nil {
		t.Fatal(err)
	}
	f.fails(&types.InvalidPowerState{
		RequestedState: types.VirtualMachinePowerStatePoweredOff, ExistingState: types.VirtualMachinePowerStatePoweredOn,
	}, res.Returnval, nil)
}

func TestVmotionPostsItsEvents(t *testing.T) {
	f := start(t)
	r, err := f.migrate(f.vm("guest"), f.host("esx-b"))
	f.done(r, err)
	f.server.v.worker.sync()
	res, err := methods.QueryEvents(f.ctx, f.client, &types.QueryEvents{
		This: *f.client.ServiceContent.EventManager, Filter: types.EventFilterSpec{
			EventTypeId: []string{"VmBeingHotMigratedEvent", "VmEmigratingEvent", "VmMigratedEvent"},
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(res.Returnval) != 3 {
		t.Fatalf("%d events", len(res.Returnval))
	}
	for _, e := range res.Returnval {
		switch e := e.(type) {
		case *types.VmMigratedEvent:
			if e.Host.Name != "esx-b" || e.SourceHost.Name != "esx-a" {
				t.Errorf("migrated from %s to %s", e.SourceHost.Name, e.Host.Name)
			}
		case *types.VmBeingHotMigratedEvent:
			if e.DestHost.Name != "esx-b" {
				t.Errorf("destination %s", e.DestHost.Name)
			}
		}
	}
}

func TestSecondMoveOfAVmIsRefusedWhileItMoves(t *testing.T) {
	f := start(t)
	f.control("POST", "/migration-delay", map[string]int{"ms": 300})
	vm := f.vm("guest")
	first, err := f.migrate(vm, f.host("esx-b"))
	if err != nil {
		t.Fatal(err)
	}
	second, err := f.migrate(vm, f.host("esx-b"))
	f.fails(&types.TaskInProgress{Task: first}, second, err)
	f.done(first, nil)
}
