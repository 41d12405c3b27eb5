package main

import (
	"testing"

	"github.com/vmware/govmomi/vim25"
	"github.com/vmware/govmomi/vim25/methods"
	"github.com/vmware/govmomi/vim25/mo"
	"github.com/vmware/govmomi/vim25/soap"
	"github.com/vmware/govmomi/vim25/types"
)

// machines reads the VMs that an endpoint shows, by name.
func (f *fixture) machines(c *vim25.Client) map[string]mo.VirtualMachine {
	f.t.Helper()
	f.server.v.worker.sync()
	view, err := methods.CreateContainerView(f.ctx, c, &types.CreateContainerView{
		This: *c.ServiceContent.ViewManager, Container: c.ServiceContent.RootFolder, Type: []string{"VirtualMachine"}, Recursive: true,
	})
	if err != nil {
		f.t.Fatal(err)
	}
	var list mo.ContainerView
	f.read(c, view.Returnval, &list, "view")
	out := map[string]mo.VirtualMachine{}
	for _, r := range list.View {
		var vm mo.VirtualMachine
		f.read(c, r, &vm, "name", "config", "runtime")
		out[vm.Name] = vm
	}
	return out
}

func TestHostShowsItsVmsAndNoOthers(t *testing.T) {
	f := start(t)
	a, b := f.esxi("esx-a"), f.esxi("esx-b")
	if a.ServiceContent.About.ApiType != "HostAgent" || !a.IsVC() == false {
		t.Errorf("apiType %s", a.ServiceContent.About.ApiType)
	}
	if got := f.machines(a); len(got) != 2 || got["vrouter-a"].Config == nil {
		t.Errorf("esx-a shows %v", got)
	}
	if got := f.machines(b); len(got) != 0 {
		t.Errorf("esx-b shows %v", got)
	}
	var here, there mo.HostSystem
	f.read(f.client, f.host("esx-a"), &there, "hardware.systemInfo.uuid")
	f.read(a, ref{Type: "HostSystem", Value: "ha-host"}, &here, "hardware.systemInfo.uuid", "name")
	if here.Hardware.SystemInfo.Uuid != there.Hardware.SystemInfo.Uuid || here.Name != "esx-a" {
		t.Errorf("%s has hardware uuid %s, in vCenter %s", here.Name, here.Hardware.SystemInfo.Uuid, there.Hardware.SystemInfo.Uuid)
	}
}

func TestCopyHasTheSameUuidsAndPorts(t *testing.T) {
	f := start(t)
	vm := f.vm("guest")
	var original mo.VirtualMachine
	f.read(f.client, vm, &original, "config")
	shown := f.machines(f.esxi("esx-a"))["guest"]
	a, b := dvNics(original.Config.Hardware.Device)[firstNicKey], dvNics(shown.Config.Hardware.Device)[firstNicKey]
	if shown.Config.InstanceUuid != original.Config.InstanceUuid || shown.Config.Uuid != original.Config.Uuid || *a.port != *b.port {
		t.Errorf("copy %+v of %+v", shown.Config, original.Config)
	}
	if shown.Self == vm {
		t.Error("the copy has vCenter's moid")
	}
}

func TestVmotionIsLeaveAndEnterAtTheHosts(t *testing.T) {
	f := start(t)
	a, b := f.watch(f.esxi("esx-a"), "VirtualMachine", "name"), f.watch(f.esxi("esx-b"), "VirtualMachine", "name")
	a.next(0)
	b.next(0)
	r, err := f.migrate(f.vm("guest"), f.host("esx-b"))
	f.done(r, err)
	a.until("leave", func(u types.ObjectUpdate) bool { return u.Kind == types.ObjectUpdateKindLeave })
	b.until("enter", func(u types.ObjectUpdate) bool {
		return u.Kind == types.ObjectUpdateKindEnter && value("name", "guest")(u)
	})
}

func TestHostFollowsPowerRenameAndRemoval(t *testing.T) {
	f := start(t)
	c, vm := f.esxi("esx-a"), f.vm("guest")
	f.powerOff(vm)
	r, err := f.reconfigure(vm, types.VirtualMachineConfigSpec{Name: "visitor"})
	f.done(r, err)
	if got := f.machines(c)["visitor"]; got.Runtime.PowerState != types.VirtualMachinePowerStatePoweredOff {
		t.Errorf("copy %+v", got.Runtime)
	}
	if _, err := methods.UnregisterVM(f.ctx, f.client, &types.UnregisterVM{This: vm}); err != nil {
		t.Fatal(err)
	}
	if _, ok := f.machines(c)["visitor"]; ok {
		t.Error("the copy stays after the VM is gone")
	}
}

func TestHostRefusesChanges(t *testing.T) {
	f := start(t)
	c := f.esxi("esx-a")
	vm := f.machines(c)["guest"].Self
	_, err := methods.PowerOffVM_Task(f.ctx, c, &types.PowerOffVM_Task{This: vm})
	if err == nil || !soap.IsSoapFault(err) {
		t.Fatalf("error %v", err)
	}
	if _, ok := soap.ToSoapFault(err).VimFault().(types.HostAccessRestrictedToManagementServer); !ok {
		t.Errorf("fault %T", soap.ToSoapFault(err).VimFault())
	}
}

func TestHostsSeeTheEventsOfAVmotion(t *testing.T) {
	f := start(t)
	b := f.esxi("esx-b")
	r, err := f.migrate(f.vm("guest"), f.host("esx-b"))
	f.done(r, err)
	f.server.v.worker.sync()
	made, err := methods.CreateCollectorForEvents(f.ctx, b, &types.CreateCollectorForEvents{This: *b.ServiceContent.EventManager})
	if err != nil {
		t.Fatal(err)
	}
	res, err := methods.ReadNextEvents(f.ctx, b, &types.ReadNextEvents{This: made.Returnval, MaxCount: 100})
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range res.Returnval {
		if m, ok := e.(*types.VmMigratedEvent); ok {
			if m.Vm.Vm != f.machines(b)["guest"].Self {
				t.Errorf("the event names %s", m.Vm.Vm)
			}
			return
		}
	}
	t.Errorf("no VmMigratedEvent among %d", len(res.Returnval))
}
