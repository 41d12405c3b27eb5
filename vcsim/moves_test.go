package main

import (
	"slices"
	"testing"
	"time"

	"github.com/vmware/govmomi/vim25/methods"
	"github.com/vmware/govmomi/vim25/mo"
	"github.com/vmware/govmomi/vim25/types"
)

// eventTypes are the posted events of the given types, oldest first.
func (f *fixture) eventTypes(names ...string) []string {
	f.t.Helper()
	f.server.v.worker.sync()
	res, err := methods.QueryEvents(f.ctx, f.client, &types.QueryEvents{
		This: *f.client.ServiceContent.EventManager, Filter: types.EventFilterSpec{EventTypeId: names},
	})
	if err != nil {
		f.t.Fatal(err)
	}
	slices.SortFunc(res.Returnval, func(a, b types.BaseEvent) int { return int(a.GetEvent().Key - b.GetEvent().Key) })
	var out []string
	for _, e := range res.Returnval {
		out = append(out, typeName(e))
	}
	return out
}

func typeName(e types.BaseEvent) string {
	switch e.(type) {
	case *types.VmFailedMigrateEvent:
		return "VmFailedMigrateEvent"
	case *types.VmBeingHotMigratedEvent:
		return "VmBeingHotMigratedEvent"
	case *types.DrsVmMigratedEvent:
		return "DrsVmMigratedEvent"
	case *types.VmMigratedEvent:
		return "VmMigratedEvent"
	case *types.VmBeingRelocatedEvent:
		return "VmBeingRelocatedEvent"
	case *types.VmRelocatedEvent:
		return "VmRelocatedEvent"
	case *types.VmRelocateFailedEvent:
		return "VmRelocateFailedEvent"
	}
	return "another"
}

func (f *fixture) relocate(vm ref, spec types.VirtualMachineRelocateSpec) (ref, error) {
	res, err := methods.RelocateVM_Task(f.ctx, f.client, &types.RelocateVM_Task{This: vm, Spec: spec})
	if err != nil {
		return ref{}, err
	}
	return res.Returnval, nil
}

func TestMoveThatIsCancelledChangesNothing(t *testing.T) {
	f := start(t)
	f.control("POST", "/migration-delay", map[string]int{"ms": 20_000})
	vm, a := f.vm("guest"), f.host("esx-a")
	task, err := f.migrate(vm, f.host("esx-b"))
	if err != nil {
		t.Fatal(err)
	}
	var running mo.Task
	f.read(f.client, task, &running, "info")
	if running.Info.State != types.TaskInfoStateRunning || !running.Info.Cancelable {
		t.Errorf("task %+v", running.Info)
	}
	begin := time.Now()
	if _, err := methods.CancelTask(f.ctx, f.client, &types.CancelTask{This: task}); err != nil {
		t.Fatal(err)
	}
	f.fails(&types.RequestCanceled{}, task, nil)
	if took := time.Since(begin); took > 10*time.Second {
		t.Errorf("cancelled after %v", took)
	}
	var o mo.VirtualMachine
	f.read(f.client, vm, &o, "runtime.host")
	if *o.Runtime.Host != a || *f.portOf(vm, firstNicKey).ProxyHost != a {
		t.Errorf("on %v, port on %v", o.Runtime.Host, f.portOf(vm, firstNicKey).ProxyHost)
	}
	got := f.eventTypes("VmBeingHotMigratedEvent", "VmMigratedEvent", "VmFailedMigrateEvent")
	if !slices.Equal(got, []string{"VmBeingHotMigratedEvent", "VmFailedMigrateEvent"}) {
		t.Errorf("events %v", got)
	}
	f.control("POST", "/migration-delay", map[string]int{"ms": 0})
	again, err := f.migrate(vm, f.host("esx-b"))
	f.done(again, err)
}

func TestMovesFailAtTheirSwitchOverAsOftenAsAsked(t *testing.T) {
	f := start(t)
	if status, _ := f.control("POST", "/migration-failure", map[string]int{"count": -1}); status != 400 {
		t.Errorf("status %d", status)
	}
	f.control("POST", "/migration-failure", map[string]int{"count": 2})
	vm, a, b := f.vm("guest"), f.host("esx-a"), f.host("esx-b")
	task, err := f.migrate(vm, b)
	f.fails(&types.MigrationFault{}, task, err)
	datastore := f.named("Datastore", datastoreName)
	task, err = f.relocate(vm, types.VirtualMachineRelocateSpec{Host: &b, Datastore: &datastore})
	f.fails(&types.MigrationFault{}, task, err)
	if host := *f.portOf(vm, firstNicKey).ProxyHost; host != a {
		t.Errorf("port on %v", host)
	}
	task, err = f.migrate(vm, b)
	f.done(task, err)
	got := f.eventTypes("VmFailedMigrateEvent", "VmRelocateFailedEvent", "VmMigratedEvent", "VmRelocatedEvent")
	if !slices.Equal(got, []string{"VmFailedMigrateEvent", "VmRelocateFailedEvent", "VmMigratedEvent"}) {
		t.Errorf("events %v", got)
	}
}

func TestMoveWithADatastoreIsARelocation(t *testing.T) {
	f := start(t)
	vm, b, datastore := f.vm("guest"), f.host("esx-b"), f.named("Datastore", datastoreName)
	task, err := f.relocate(vm, types.VirtualMachineRelocateSpec{Host: &b, Datastore: &datastore})
	f.done(task, err)
	if host := *f.portOf(vm, firstNicKey).ProxyHost; host != b {
		t.Errorf("port on %v", host)
	}
	got := f.eventTypes("VmBeingHotMigratedEvent", "VmMigratedEvent", "VmBeingRelocatedEvent", "VmRelocatedEvent")
	if !slices.Equal(got, []string{"VmBeingRelocatedEvent", "VmRelocatedEvent"}) {
		t.Errorf("events %v", got)
	}
}

func TestTaskThatIsOverCannotBeCancelled(t *testing.T) {
	f := start(t)
	task, err := f.migrate(f.vm("guest"), f.host("esx-b"))
	f.done(task, err)
	if _, err := methods.CancelTask(f.ctx, f.client, &types.CancelTask{This: task}); err == nil {
		t.Error("cancelled")
	}
}

func TestEventCollectorsOfEndedSessionsDoNotUseUpALimit(t *testing.T) {
	f := start(t)
	for i := range 40 {
		if _, err := methods.CreateCollectorForEvents(f.ctx, f.client, &types.CreateCollectorForEvents{
			This: *f.client.ServiceContent.EventManager,
		}); err != nil {
			t.Fatalf("collector %d: %v", i+1, err)
		}
	}
}
