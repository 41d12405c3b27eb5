package main

import (
	"context"
	"reflect"
	"slices"
	"testing"

	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/methods"
	"github.com/vmware/govmomi/vim25/mo"
	"github.com/vmware/govmomi/vim25/soap"
	"github.com/vmware/govmomi/vim25/types"
)

// These tests hold the seams of govmomi's simulator that vcsim relies on. One
// that fails after an upgrade of govmomi names the seam that changed.

type probeSwitch struct {
	*simulator.DistributedVirtualSwitch
}

// ReconfigureDVPortTask is a method that stock does not have.
func (p *probeSwitch) ReconfigureDVPortTask(*simulator.Context, *types.ReconfigureDVPort_Task) soap.HasFault {
	return &methods.ReconfigureDVPort_TaskBody{Res: &types.ReconfigureDVPort_TaskResponse{Returnval: p.Self}}
}

func stockModel(t *testing.T) (*simulator.Model, *simulator.DistributedVirtualSwitch) {
	t.Helper()
	m := simulator.VPX()
	if err := m.Create(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(m.Remove)
	return m, m.Map().Any("DistributedVirtualSwitch").(*simulator.DistributedVirtualSwitch)
}

func callProbe(m *simulator.Model, dvs ref) error {
	body := methods.ReconfigureDVPort_TaskBody{Req: &types.ReconfigureDVPort_Task{This: dvs}}
	return m.Service.RoundTrip(context.Background(), &body, &body)
}

func TestStockHasNoReconfigureDVPort(t *testing.T) {
	m, dvs := stockModel(t)
	if callProbe(m, dvs.Self) == nil {
		t.Error("stock answers: the override is no longer needed, or the hook test proves nothing")
	}
}

func TestHandlerAnswersWhenTheReferenceIsChanged(t *testing.T) {
	m, dvs := stockModel(t)
	m.Map().Handler = func(_ *simulator.Context, method *simulator.Method) (mo.Reference, types.BaseMethodFault) {
		if method.This != dvs.Self {
			return nil, nil
		}
		method.This.Value += extended
		return &probeSwitch{dvs}, nil
	}
	if err := callProbe(m, dvs.Self); err != nil {
		t.Errorf("wrapper was not called: %v", err)
	}
}

func TestHandlerIsIgnoredWhenTheReferenceIsKept(t *testing.T) {
	m, dvs := stockModel(t)
	m.Map().Handler = func(*simulator.Context, *simulator.Method) (mo.Reference, types.BaseMethodFault) {
		return &probeSwitch{dvs}, nil
	}
	if callProbe(m, dvs.Self) == nil {
		t.Error("stock prefers the Handler's object now: changing the reference is no longer needed")
	}
}

type probeHandler struct {
	put     []mo.Reference
	updated []string
	removed []ref
}

func (p *probeHandler) Reference() ref { return ref{Type: "Probe", Value: "probe"} }
func (p *probeHandler) PutObject(_ *simulator.Context, o mo.Reference) {
	p.put = append(p.put, o)
}
func (p *probeHandler) UpdateObject(_ *simulator.Context, o mo.Reference, changes []types.PropertyChange) {
	if _, ok := o.(*mo.VirtualMachine); ok {
		for _, c := range changes {
			p.updated = append(p.updated, c.Name)
		}
	}
}
func (p *probeHandler) RemoveObject(_ *simulator.Context, r ref) { p.removed = append(p.removed, r) }

func TestRegisterObjectSeesPutUpdateAndRemove(t *testing.T) {
	m, _ := stockModel(t)
	probe := &probeHandler{}
	m.Map().AddHandler(probe)
	ctx := freshContext(m.Service.Context)
	vm := m.Map().Any("VirtualMachine").(*simulator.VirtualMachine)
	ctx.WithLock(vm, func() { ctx.Update(vm, []types.PropertyChange{{Name: "name", Val: "other"}}) })
	if !reflect.DeepEqual(probe.updated, []string{"name"}) {
		t.Errorf("updates: %v", probe.updated)
	}
	extra := &simulator.VirtualMachine{}
	m.Map().Put(extra)
	m.Map().Remove(ctx, extra.Self)
	if len(probe.put) != 1 || probe.put[0] != mo.Reference(extra) || !reflect.DeepEqual(probe.removed, []ref{extra.Self}) {
		t.Errorf("put %v, removed %v", probe.put, probe.removed)
	}
}

func TestTaskIsPutBeforeItRunsAndItsExecuteCanBeReplaced(t *testing.T) {
	m, _ := stockModel(t)
	var wrappers taskWrappers
	m.Map().AddHandler(taskProbe{&wrappers})
	ctx := freshContext(m.Service.Context)
	vm := m.Map().Any("VirtualMachine").(*simulator.VirtualMachine)
	var order []string
	ctx.WithLock(vm, func() {
		body := wrappers.around(vm.Self, func(stock execution) execution {
			return func(task *simulator.Task) (types.AnyType, types.BaseMethodFault) {
				order = append(order, "before")
				result, fault := stock(task)
				order = append(order, string(vm.Runtime.PowerState))
				return result, fault
			}
		}, func() soap.HasFault { return vm.PowerOffVMTask(ctx, &types.PowerOffVM_Task{This: vm.Self}) })
		if _, f := waitTask(ctx, body.(*methods.PowerOffVM_TaskBody).Res.Returnval); f != nil {
			t.Errorf("task: %T", f)
		}
	})
	if !reflect.DeepEqual(order, []string{"before", "poweredOff"}) {
		t.Errorf("order: %v", order)
	}
}

type taskProbe struct{ w *taskWrappers }

func (taskProbe) Reference() ref { return ref{Type: "Probe", Value: "tasks"} }
func (p taskProbe) PutObject(_ *simulator.Context, o mo.Reference) {
	if t, ok := o.(*simulator.Task); ok {
		p.w.apply(t)
	}
}
func (taskProbe) UpdateObject(*simulator.Context, mo.Reference, []types.PropertyChange) {}
func (taskProbe) RemoveObject(*simulator.Context, ref)                                  {}

func TestEverySessionHasACollectorOfTheReplacedType(t *testing.T) {
	f := start(t)
	res, err := methods.CreatePropertyCollector(f.ctx, f.client, &types.CreatePropertyCollector{
		This: f.client.ServiceContent.PropertyCollector,
	})
	if err != nil {
		t.Fatal(err)
	}
	// Stock has no CheckForUpdates: that it answers shows whose collector this is.
	for _, r := range []ref{f.client.ServiceContent.PropertyCollector, res.Returnval} {
		if _, err := methods.CheckForUpdates(f.ctx, f.client, &types.CheckForUpdates{This: r}); err != nil {
			t.Errorf("%s: %v", r, err)
		}
	}
}

func TestUpdatesAreAppliedToTheFieldThatThePathNames(t *testing.T) {
	f := start(t)
	vm := lookup[*simulator.VirtualMachine](f.server.v.registry, f.vm("guest"))
	ctx := f.server.v.newContext()
	ctx.WithLock(vm, func() { ctx.Update(vm, []types.PropertyChange{{Name: "config.annotation", Val: "noted"}}) })
	if vm.Config.Annotation != "noted" {
		t.Errorf("annotation %q", vm.Config.Annotation)
	}
}

func TestCheckpointIsACopyAndAutoUpdateSendsTheDifference(t *testing.T) {
	m, _ := stockModel(t)
	probe := &probeHandler{}
	m.Map().AddHandler(probe)
	ctx := freshContext(m.Service.Context)
	vm := m.Map().Any("VirtualMachine").(*simulator.VirtualMachine)
	snapshot := ctx.Checkpoint(vm).(*mo.VirtualMachine)
	snapshot.Config.Annotation = "changed in the copy"
	if vm.Config.Annotation != "" {
		t.Error("the snapshot shares memory with the object")
	}
	ctx.AutoUpdate(vm, func() { vm.Runtime.PowerState = types.VirtualMachinePowerStateSuspended })
	if !slices.Contains(probe.updated, "runtime") {
		t.Errorf("updates: %v", probe.updated)
	}
}

func TestDispatchLeavesUnknownMethodsToStock(t *testing.T) {
	f := start(t)
	_, err := methods.MoveDVPort_Task(f.ctx, f.client, &types.MoveDVPort_Task{This: f.dvs().Self})
	if err == nil || !soap.IsSoapFault(err) {
		t.Fatalf("error %v", err)
	}
	fault, ok := soap.ToSoapFault(err).VimFault().(types.MethodNotFound)
	if !ok || fault.Receiver.Value != f.dvs().Self.Value {
		t.Errorf("fault %+v, want MethodNotFound of %s", soap.ToSoapFault(err).VimFault(), f.dvs().Self)
	}
}
