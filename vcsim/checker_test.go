package main

import (
	"testing"

	"github.com/vmware/govmomi/vim25/methods"
	"github.com/vmware/govmomi/vim25/types"
)

// check asks whether a VM could be moved to a host and returns the reasons against it.
func (f *fixture) check(vm ref, host *ref) []types.LocalizedMethodFault {
	f.t.Helper()
	res, err := methods.CheckMigrate_Task(f.ctx, f.client, &types.CheckMigrate_Task{
		This: *f.client.ServiceContent.VmProvisioningChecker, Vm: vm, Host: host,
	})
	if err != nil {
		f.t.Fatal(err)
	}
	result, fault := f.task(res.Returnval, nil)
	if fault != nil {
		f.t.Fatalf("%#v", fault)
	}
	checks := result.(types.ArrayOfCheckResult).CheckResult
	if len(checks) != 1 || *checks[0].Vm != vm || *checks[0].Host != *host {
		f.t.Fatalf("%+v", checks)
	}
	return checks[0].Error
}

func (f *fixture) setOption(key string, value any) {
	f.t.Helper()
	_, err := methods.UpdateOptions(f.ctx, f.client, &types.UpdateOptions{
		This:         *f.client.ServiceContent.Setting,
		ChangedValue: []types.BaseOptionValue{&types.OptionValue{Key: key, Value: value}},
	})
	if err != nil {
		f.t.Fatal(err)
	}
}

func (f *fixture) reconfigureHost(member types.DistributedVirtualSwitchHostMemberConfigSpec) {
	f.t.Helper()
	res, err := methods.ReconfigureDvs_Task(f.ctx, f.client, &types.ReconfigureDvs_Task{
		This: f.dvs().Self, Spec: &types.VMwareDVSConfigSpec{DVSConfigSpec: types.DVSConfigSpec{
			Host: []types.DistributedVirtualSwitchHostMemberConfigSpec{member},
		}},
	})
	if err != nil {
		f.t.Fatal(err)
	}
	if _, fault := f.task(res.Returnval, nil); fault != nil {
		f.t.Fatalf("%#v", fault)
	}
}

func pnics(devices ...string) *types.DistributedVirtualSwitchHostMemberPnicBacking {
	backing := &types.DistributedVirtualSwitchHostMemberPnicBacking{}
	for _, d := range devices {
		backing.PnicSpec = append(backing.PnicSpec, types.DistributedVirtualSwitchHostMemberPnicSpec{PnicDevice: d})
	}
	return backing
}

func TestACheckAllowsAMoveAndMovesNothing(t *testing.T) {
	f := start(t)
	vm, a, b := f.vm("guest"), f.host("esx-a"), f.host("esx-b")
	if reasons := f.check(vm, &b); len(reasons) != 0 {
		t.Errorf("%#v", reasons)
	}
	if now := f.portOf(vm, firstNicKey).ProxyHost; *now != a {
		t.Errorf("moved to %v", now)
	}
}

func TestACheckTellsThatTheSwitchIsNotOnTheHost(t *testing.T) {
	f := start(t)
	b := f.host("esx-b")
	f.reconfigureHost(types.DistributedVirtualSwitchHostMemberConfigSpec{Operation: "remove", Host: b})
	reasons := f.check(f.vm("guest"), &b)
	if len(reasons) != 1 {
		t.Fatalf("%#v", reasons)
	}
	if _, ok := reasons[0].Fault.(*types.CannotAccessNetwork); !ok {
		t.Errorf("%#v", reasons[0].Fault)
	}
}

func TestASwitchWithoutPhysicalNicsIsAnIntranetIfVcenterMinds(t *testing.T) {
	f := start(t)
	vm, b := f.vm("guest"), f.host("esx-b")
	f.setOption(intranetOption, "true")
	reasons := f.check(vm, &b)
	if len(reasons) != 1 {
		t.Fatalf("%#v", reasons)
	}
	if _, ok := reasons[0].Fault.(*types.VMOnVirtualIntranet); !ok {
		t.Errorf("%#v", reasons[0].Fault)
	}
	f.reconfigureHost(types.DistributedVirtualSwitchHostMemberConfigSpec{Operation: "edit", Host: b, Backing: pnics("vmnic1")})
	if reasons := f.check(vm, &b); len(reasons) != 0 {
		t.Errorf("with a physical NIC: %#v", reasons)
	}
	f.setOption(intranetOption, "false")
	f.reconfigureHost(types.DistributedVirtualSwitchHostMemberConfigSpec{Operation: "edit", Host: b, Backing: pnics()})
	if reasons := f.check(vm, &b); len(reasons) != 0 {
		t.Errorf("not minded: %#v", reasons)
	}
}

func TestPhysicalNicsOfAHostStayUntilTheyAreChanged(t *testing.T) {
	f := start(t)
	a, b := f.host("esx-a"), f.host("esx-b")
	f.reconfigureHost(types.DistributedVirtualSwitchHostMemberConfigSpec{Operation: "edit", Host: b, Backing: pnics("vmnic1", "vmnic2")})
	f.reconfigureHost(types.DistributedVirtualSwitchHostMemberConfigSpec{Operation: "edit", Host: a, Backing: pnics("vmnic3")})
	want := map[ref]int{a: 1, b: 2}
	for _, member := range f.dvs().Config.GetDVSConfigInfo().Host {
		backing := member.Config.Backing.(*types.DistributedVirtualSwitchHostMemberPnicBacking)
		if len(backing.PnicSpec) != want[*member.Config.Host] {
			t.Errorf("%v has %v", member.Config.Host, backing.PnicSpec)
		}
	}
}

func TestACheckNeedsAHostAndAVM(t *testing.T) {
	f := start(t)
	b := f.host("esx-b")
	for _, req := range []types.CheckMigrate_Task{
		{Vm: f.vm("guest")},
		{Vm: ref{Type: "VirtualMachine", Value: "vm-0"}, Host: &b},
	} {
		req.This = *f.client.ServiceContent.VmProvisioningChecker
		if _, err := methods.CheckMigrate_Task(f.ctx, f.client, &req); err == nil {
			t.Errorf("%+v was taken", req)
		}
	}
}
