package main

import (
	"slices"
	"testing"

	"github.com/vmware/govmomi/vim25/methods"
	"github.com/vmware/govmomi/vim25/mo"
	"github.com/vmware/govmomi/vim25/types"
)

func (f *fixture) setPvlans(changes ...types.VMwareDVSPvlanConfigSpec) (ref, error) {
	res, err := methods.ReconfigureDvs_Task(f.ctx, f.client, &types.ReconfigureDvs_Task{
		This: f.dvs().Self, Spec: &types.VMwareDVSConfigSpec{PvlanConfigSpec: changes},
	})
	if err != nil {
		return ref{}, err
	}
	return res.Returnval, nil
}

func (f *fixture) pvlans() []types.VMwareDVSPvlanMapEntry {
	f.t.Helper()
	var d mo.VmwareDistributedVirtualSwitch
	f.read(f.client, f.dvs().Self, &d, "config")
	return d.Config.(*types.VMwareDVSConfigInfo).PvlanConfig
}

func TestPvlanMapIsChangedAndPushed(t *testing.T) {
	f := start(t)
	w := f.watch(f.client, "DistributedVirtualSwitch", "config")
	w.next(0)
	primary := types.VMwareDVSPvlanMapEntry{PrimaryVlanId: 90, SecondaryVlanId: 90, PvlanType: "promiscuous"}
	isolated := types.VMwareDVSPvlanMapEntry{PrimaryVlanId: 90, SecondaryVlanId: 91, PvlanType: "isolated"}
	task, err := f.setPvlans(
		types.VMwareDVSPvlanConfigSpec{PvlanEntry: primary, Operation: "add"},
		types.VMwareDVSPvlanConfigSpec{PvlanEntry: isolated, Operation: "add"},
	)
	f.done(task, err)
	w.until("the map", func(u types.ObjectUpdate) bool {
		for _, c := range u.ChangeSet {
			if cfg, ok := c.Val.(types.VMwareDVSConfigInfo); ok && len(cfg.PvlanConfig) == 2 {
				return true
			}
		}
		return false
	})
	task, err = f.setPvlans(types.VMwareDVSPvlanConfigSpec{PvlanEntry: isolated, Operation: "remove"})
	f.done(task, err)
	if got := f.pvlans(); !slices.Equal(got, []types.VMwareDVSPvlanMapEntry{primary}) {
		t.Errorf("map %v", got)
	}
}

func TestPvlanChangesThatAreRefusedLeaveTheMap(t *testing.T) {
	f := start(t)
	entry := types.VMwareDVSPvlanMapEntry{PrimaryVlanId: 90, SecondaryVlanId: 90, PvlanType: "promiscuous"}
	add := func(e types.VMwareDVSPvlanMapEntry) types.VMwareDVSPvlanConfigSpec {
		return types.VMwareDVSPvlanConfigSpec{PvlanEntry: e, Operation: "add"}
	}
	bad := entry
	bad.SecondaryVlanId = 4095
	task, err := f.setPvlans(add(entry), add(bad))
	f.fails(&types.InvalidArgument{InvalidProperty: "spec.pvlanConfigSpec.pvlanEntry"}, task, err)
	task, err = f.setPvlans(add(entry), add(entry))
	f.fails(&types.AlreadyExists{}, task, err)
	task, err = f.setPvlans(types.VMwareDVSPvlanConfigSpec{PvlanEntry: entry, Operation: "remove"})
	f.fails(&types.NotFound{}, task, err)
	if got := f.pvlans(); len(got) != 0 {
		t.Errorf("map %v", got)
	}
}
