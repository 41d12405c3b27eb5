package main

import (
	"regexp"
	"testing"

	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/methods"
	"github.com/vmware/govmomi/vim25/mo"
	"github.com/vmware/govmomi/vim25/types"
)

func TestSwitchIsComplete(t *testing.T) {
	f := start(t)
	var o mo.DistributedVirtualSwitch
	f.read(f.client, f.dvs().Self, &o, "config", "summary", "uuid")
	cfg := o.Config.(*types.VMwareDVSConfigInfo)
	if !regexp.MustCompile(`^50( [0-9a-f]{2}){7}-[0-9a-f]{2}( [0-9a-f]{2}){7}$`).MatchString(o.Uuid) {
		t.Errorf("uuid %q", o.Uuid)
	}
	if len(cfg.Host) != 2 || len(cfg.UplinkPortgroup) != 1 || o.Summary.NumHosts != 2 || cfg.ConfigVersion == "" {
		t.Errorf("config %+v", cfg)
	}
	var uplinks mo.DistributedVirtualPortgroup
	f.read(f.client, cfg.UplinkPortgroup[0], &uplinks, "portKeys", "config")
	if len(uplinks.PortKeys) != 2*uplinksPerHost || uplinks.Config.NumPorts != 2*uplinksPerHost {
		t.Errorf("uplink portgroup has ports %v", uplinks.PortKeys)
	}
}

func TestSwitchIsFoundByUuid(t *testing.T) {
	f := start(t)
	manager := *f.client.ServiceContent.DvSwitchManager
	for uuid, want := range map[string]bool{f.dvs().Uuid: true, "50 00": false} {
		res, err := methods.QueryDvsByUuid(f.ctx, f.client, &types.QueryDvsByUuid{This: manager, Uuid: uuid})
		if err != nil {
			t.Fatal(err)
		}
		if got := res.Returnval != nil; got != want {
			t.Errorf("%s: found %v, want %v", uuid, got, want)
		}
	}
	res, err := methods.DVSManagerLookupDvPortGroup(f.ctx, f.client, &types.DVSManagerLookupDvPortGroup{
		This: manager, SwitchUuid: f.dvs().Uuid, PortgroupKey: f.pg("office").Value,
	})
	if err != nil || res.Returnval == nil || *res.Returnval != f.pg("office") {
		t.Errorf("portgroup by key: %v, %v", res, err)
	}
}

func TestSwitchReconfigureChecksTheVersionAndKeepsTheRest(t *testing.T) {
	f := start(t)
	change := func(spec *types.VMwareDVSConfigSpec) (ref, error) {
		res, err := methods.ReconfigureDvs_Task(f.ctx, f.client, &types.ReconfigureDvs_Task{This: f.dvs().Self, Spec: spec})
		return res.Returnval, err
	}
	r, err := change(&types.VMwareDVSConfigSpec{DVSConfigSpec: types.DVSConfigSpec{ConfigVersion: "99"}})
	f.fails(&types.ConcurrentAccess{}, r, err)
	r, err = change(&types.VMwareDVSConfigSpec{MaxMtu: 9000})
	f.done(r, err)
	cfg := f.dvs().Config.(*types.VMwareDVSConfigInfo)
	if cfg.MaxMtu != 9000 || cfg.Name != "dvs-tf" || len(cfg.Host) != 2 {
		t.Errorf("config %+v", cfg)
	}
}

func TestDestroyOfASwitchInUseIsRefused(t *testing.T) {
	f := start(t)
	res, err := methods.Destroy_Task(f.ctx, f.client, &types.Destroy_Task{This: f.dvs().Self})
	if err != nil {
		t.Fatal(err)
	}
	f.fails(&types.ResourceInUse{Type: "VmwareDistributedVirtualSwitch", Name: "dvs-tf"}, res.Returnval, nil)
}

func TestCreateOfASecondSwitch(t *testing.T) {
	f := start(t)
	dc := lookup[*simulator.Datacenter](f.server.v.registry, f.named("Datacenter", datacenterName))
	create := func(name string) (ref, error) {
		res, err := methods.CreateDVS_Task(f.ctx, f.client, &types.CreateDVS_Task{
			This: dc.NetworkFolder, Spec: types.DVSCreateSpec{ConfigSpec: &types.VMwareDVSConfigSpec{
				DVSConfigSpec: types.DVSConfigSpec{Name: name},
			}},
		})
		return res.Returnval, err
	}
	r, err := create("DVS-TF")
	f.fails(&types.DuplicateName{Name: "DVS-TF", Object: f.dvs().Self}, r, err)
	r, err = create("second")
	if made := f.done(r, err).(ref); made.Type != "VmwareDistributedVirtualSwitch" && made.Type != "DistributedVirtualSwitch" {
		t.Errorf("result %v", made)
	}
}
