package main

import (
	"testing"

	"github.com/vmware/govmomi/vim25/methods"
	"github.com/vmware/govmomi/vim25/mo"
	"github.com/vmware/govmomi/vim25/types"
)

func TestVmRenameIsPushedEverywhere(t *testing.T) {
	f := start(t)
	vm := f.vm("guest")
	w := f.watch(f.client, "VirtualMachine", "name", "config.name")
	w.next(0)
	res, err := methods.Rename_Task(f.ctx, f.client, &types.Rename_Task{This: vm, NewName: "visitor"})
	if err != nil {
		t.Fatal(err)
	}
	f.done(res.Returnval, nil)
	w.until("name and config.name", func(u types.ObjectUpdate) bool {
		return value("name", "visitor")(u) && value("config.name", "visitor")(u)
	})
	r, err := f.reconfigure(vm, types.VirtualMachineConfigSpec{Name: "guest again"})
	f.done(r, err)
	w.until("name by ReconfigVM", value("name", "guest again"))
}

func TestVmNameThatIsTakenIsRefused(t *testing.T) {
	f := start(t)
	r, err := f.reconfigure(f.vm("guest"), types.VirtualMachineConfigSpec{Name: "VROUTER-A"})
	f.fails(&types.DuplicateName{Name: "VROUTER-A", Object: f.vm("vrouter-a")}, r, err)
}

func TestStaleChangeVersionIsRefused(t *testing.T) {
	f := start(t)
	r, err := f.reconfigure(f.vm("guest"), types.VirtualMachineConfigSpec{ChangeVersion: "long ago", Annotation: "x"})
	f.fails(&types.ConcurrentAccess{}, r, err)
}

func TestTemplateFlagIsPushed(t *testing.T) {
	f := start(t)
	vm := f.vm("guest")
	f.powerOff(vm)
	w := f.watch(f.client, "VirtualMachine", "config.template")
	w.next(0)
	if _, err := methods.MarkAsTemplate(f.ctx, f.client, &types.MarkAsTemplate{This: vm}); err != nil {
		t.Fatal(err)
	}
	w.until("template", value("config.template", true))
	_, err := methods.MarkAsVirtualMachine(f.ctx, f.client, &types.MarkAsVirtualMachine{This: vm, Pool: f.pool()})
	if err != nil {
		t.Fatal(err)
	}
	w.until("no template", value("config.template", false))
}

func TestVrouterVmHasItsUuidAndItsTrunkNic(t *testing.T) {
	f := start(t)
	var o mo.VirtualMachine
	f.read(f.client, f.vm("vrouter-a"), &o, "config", "runtime", "summary.config.uuid")
	if o.Config.Uuid != "42160000-0000-4000-8000-00000000000a" || o.Summary.Config.Uuid != o.Config.Uuid {
		t.Errorf("uuids %s and %s", o.Config.Uuid, o.Summary.Config.Uuid)
	}
	trunk := dvNics(o.Config.Hardware.Device)[firstNicKey+1]
	if trunk.card == nil || trunk.card.MacAddress != "00:50:56:00:00:01" || trunk.port.PortgroupKey != f.pg("tf-trunk").Value {
		t.Errorf("trunk NIC %+v", trunk.card)
	}
	if o.Runtime.PowerState != types.VirtualMachinePowerStatePoweredOn || *o.Runtime.Host != f.host("esx-a") {
		t.Errorf("runtime %+v", o.Runtime)
	}
	// pyVmomi can't decode these when they are empty.
	if o.Runtime.FaultToleranceState == "" || o.Runtime.RecordReplayState == "" {
		t.Errorf("empty enums in %+v", o.Runtime)
	}
}

func TestVmIsFoundByItsUuids(t *testing.T) {
	f := start(t)
	vm := f.vm("vrouter-a")
	var o mo.VirtualMachine
	f.read(f.client, vm, &o, "config.uuid", "config.instanceUuid")
	for instance, uuid := range map[bool]string{false: o.Config.Uuid, true: o.Config.InstanceUuid} {
		res, err := methods.FindByUuid(f.ctx, f.client, &types.FindByUuid{
			This: *f.client.ServiceContent.SearchIndex, Uuid: uuid, VmSearch: true, InstanceUuid: types.NewBool(instance),
		})
		if err != nil || res.Returnval == nil || *res.Returnval != vm {
			t.Errorf("instance %v: %v, %v", instance, res, err)
		}
	}
}

func TestVmCreatedAnewUnderAnOldNameIsAnotherVm(t *testing.T) {
	f := start(t)
	seen := map[string]bool{}
	for range 2 {
		vm := f.createVM("short", "esx-a")
		var o mo.VirtualMachine
		f.read(f.client, vm, &o, "config.uuid", "config.instanceUuid")
		if seen[o.Config.InstanceUuid] || seen[o.Config.Uuid] {
			t.Errorf("a uuid came back: %+v", o.Config)
		}
		seen[o.Config.InstanceUuid], seen[o.Config.Uuid] = true, true
		res, err := methods.Destroy_Task(f.ctx, f.client, &types.Destroy_Task{This: vm})
		if err != nil {
			t.Fatal(err)
		}
		f.done(res.Returnval, nil)
	}
}

func TestCreateRefusesATakenName(t *testing.T) {
	f := start(t)
	folder, spec := f.createSpec("Guest")
	res, err := methods.CreateVM_Task(f.ctx, f.client, &types.CreateVM_Task{This: folder, Config: spec, Pool: f.pool()})
	if err != nil {
		t.Fatal(err)
	}
	f.fails(&types.DuplicateName{Name: "Guest", Object: f.vm("guest")}, res.Returnval, nil)
}

func TestRegisteredVmIsTheOneThatWasUnregistered(t *testing.T) {
	f := start(t)
	vm := f.vm("guest")
	f.powerOff(vm)
	var before, after mo.VirtualMachine
	f.read(f.client, vm, &before, "config")
	if _, err := methods.UnregisterVM(f.ctx, f.client, &types.UnregisterVM{This: vm}); err != nil {
		t.Fatal(err)
	}
	f.server.v.worker.sync()
	w := f.watch(f.client, "HostSystem", "vm")
	w.next(0)
	folder, _ := f.createSpec("")
	pool, host := f.pool(), f.host("esx-b")
	res, err := methods.RegisterVM_Task(f.ctx, f.client, &types.RegisterVM_Task{
		This: folder, Path: before.Config.Files.VmPathName, Pool: &pool, Host: &host,
	})
	if err != nil {
		t.Fatal(err)
	}
	registered := f.done(res.Returnval, nil).(ref)
	if registered == vm {
		t.Error("the reference is the old one")
	}
	f.read(f.client, registered, &after, "config")
	if after.Config.Uuid != before.Config.Uuid || after.Config.InstanceUuid != before.Config.InstanceUuid {
		t.Errorf("uuids %s %s", after.Config.Uuid, after.Config.InstanceUuid)
	}
	old, nic := dvNics(before.Config.Hardware.Device)[firstNicKey], dvNics(after.Config.Hardware.Device)[firstNicKey]
	if nic.card == nil || nic.card.MacAddress != old.card.MacAddress || nic.port.PortgroupKey != old.port.PortgroupKey {
		t.Errorf("NIC %+v", nic.card)
	}
	if p := f.portOf(registered, firstNicKey); *p.Connectee.ConnectedEntity != registered {
		t.Errorf("connectee %+v", p.Connectee)
	}
	w.until("HostSystem.vm of esx-b", func(u types.ObjectUpdate) bool {
		return u.Obj == host && len(u.ChangeSet) == 1
	})
}
