package main

import (
	"slices"
	"strings"
	"time"

	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/methods"
	"github.com/vmware/govmomi/vim25/soap"
	"github.com/vmware/govmomi/vim25/types"
)

// switchMethods overrides methods of a distributed switch.
type switchMethods struct {
	*simulator.DistributedVirtualSwitch
	v *vcenter
}

// switchManagerMethods overrides methods of the DistributedVirtualSwitchManager.
type switchManagerMethods struct {
	*simulator.DistributedVirtualSwitchManager
	v *vcenter
}

// CreateDVSTask replaces the stock method: full configuration, uuid in
// vCenter's format, uplink portgroup present when the task ends.
func (f *folderMethods) CreateDVSTask(ctx *simulator.Context, req *types.CreateDVS_Task) soap.HasFault {
	task := runTask(ctx, f.Folder, "createDVS", func(*simulator.Task) (types.AnyType, types.BaseMethodFault) {
		return f.createSwitch(ctx, &req.Spec)
	})
	return &methods.CreateDVS_TaskBody{Res: &types.CreateDVS_TaskResponse{Returnval: task}}
}

func (f *folderMethods) createSwitch(ctx *simulator.Context, create *types.DVSCreateSpec) (types.AnyType, types.BaseMethodFault) {
	spec := create.ConfigSpec.GetDVSConfigSpec()
	if fault := f.v.nameTaken(spec.Name, &f.Self, ref{}); fault != nil {
		return nil, fault
	}
	d := &simulator.DistributedVirtualSwitch{}
	d.Self.Type = "DistributedVirtualSwitch" // renamed on the wire, see wire.go
	f.v.registry.NewEntity(d)
	d.Name = spec.Name
	d.Entity().Name = spec.Name
	d.Uuid = vcenterUUID(d.Self.Value + spec.Name)
	d.Config = newSwitchConfig(d, create.ConfigSpec)
	product := create.ProductInfo
	if product == nil {
		about := f.v.about()
		product = &types.DistributedVirtualSwitchProductSpec{
			Name: "DVS", Vendor: about.Vendor, Version: about.Version, Build: about.Build, ForwardingClass: "etherswitch",
		}
	}
	d.Summary = types.DVSSummary{Name: d.Name, Uuid: d.Uuid, ProductInfo: product, Description: spec.Description}
	children := append(slices.Clone(f.ChildEntity), d.Self)
	ctx.Update(f.Folder, []types.PropertyChange{{Name: "childEntity", Val: children}}) // before Put, for container views
	f.v.registry.PutEntity(f.Folder, d)

	wrapper := &switchMethods{d, f.v}
	// The inner task shares the folder's lock through ctx.
	r := wrapper.addPortgroups(ctx, []types.DVPortgroupConfigSpec{{
		Name: d.Name + "-DVUplinks-" + strings.TrimPrefix(d.Self.Value, "dvs-"), Type: earlyBinding,
		DefaultPortConfig: &types.VMwareDVSPortSetting{Vlan: &types.VmwareDistributedVirtualSwitchTrunkVlanSpec{
			VlanId: []types.NumericRange{{Start: 0, End: 4094}},
		}},
	}}, true, nil)
	if _, fault := waitTask(ctx, r); fault != nil {
		return nil, fault
	}
	f.v.mu.Lock()
	event := f.v.switchEvent(f.v.switchOf(d))
	f.v.mu.Unlock()
	f.v.postLater(&types.DvsCreatedEvent{DvsEvent: event, Parent: types.FolderEventArgument{
		Folder: f.Self, EntityEventArgument: types.EntityEventArgument{Name: f.Name},
	}})
	return d.Self, nil
}

func newSwitchConfig(d *simulator.DistributedVirtualSwitch, base types.BaseDVSConfigSpec) *types.VMwareDVSConfigInfo {
	spec := base.GetDVSConfigSpec()
	uplinks := []string{"Uplink 1", "Uplink 2"}[:uplinksPerHost]
	if p, ok := spec.UplinkPortPolicy.(*types.DVSNameArrayUplinkPortPolicy); ok && len(p.UplinkPortName) != 0 {
		uplinks = p.UplinkPortName
	}
	cfg := &types.VMwareDVSConfigInfo{DVSConfigInfo: types.DVSConfigInfo{
		Uuid: d.Uuid, Name: d.Name, ConfigVersion: "1", NumStandalonePorts: spec.NumStandalonePorts,
		MaxPorts: 8192, UplinkPortPolicy: &types.DVSNameArrayUplinkPortPolicy{UplinkPortName: uplinks},
		DefaultPortConfig: spec.DefaultPortConfig, ExtensionKey: spec.ExtensionKey, Description: spec.Description,
		Policy: spec.Policy, VendorSpecificConfig: spec.VendorSpecificConfig, CreateTime: time.Now(),
		NetworkResourceManagementEnabled: true,
	}, MaxMtu: 1500}
	if s, ok := base.(*types.VMwareDVSConfigSpec); ok {
		if s.MaxMtu != 0 {
			cfg.MaxMtu = s.MaxMtu
		}
		cfg.LinkDiscoveryProtocolConfig = s.LinkDiscoveryProtocolConfig
	}
	return cfg
}

func (v *vcenter) about() types.AboutInfo {
	return lookup[*simulator.ServiceInstance](v.registry, ref{Type: "ServiceInstance", Value: "ServiceInstance"}).Content.About
}

// ReconfigureDvsTask adds to stock, which keeps only the host members: the
// other settings, configVersion, config.host and the hosts' uplink ports.
func (d *switchMethods) ReconfigureDvsTask(ctx *simulator.Context, req *types.ReconfigureDvs_Task) soap.HasFault {
	return d.v.tasks.around(d.Self, func(stock execution) execution {
		return func(t *simulator.Task) (types.AnyType, types.BaseMethodFault) {
			spec := req.Spec.GetDVSConfigSpec()
			cfg := d.Config.(*types.VMwareDVSConfigInfo)
			if spec.ConfigVersion != "" && spec.ConfigVersion != cfg.ConfigVersion {
				return nil, &types.ConcurrentAccess{}
			}
			pvlans, fault := changedPvlans(cfg.PvlanConfig, req.Spec)
			if fault != nil {
				return nil, fault
			}
			if result, fault := stock(t); fault != nil {
				return result, fault
			}
			d.reconfigured(ctx, req.Spec, pvlans)
			return nil, nil
		}
	}, func() soap.HasFault { return d.DistributedVirtualSwitch.ReconfigureDvsTask(ctx, withoutEdits(req)) })
}

func (d *switchMethods) reconfigured(ctx *simulator.Context, base types.BaseDVSConfigSpec, pvlans []types.VMwareDVSPvlanMapEntry) {
	spec := base.GetDVSConfigSpec()
	cfg := *d.Config.(*types.VMwareDVSConfigInfo)
	cfg.PvlanConfig = pvlans
	for _, h := range spec.Host {
		d.uplinks(h, &cfg)
	}
	if spec.Description != "" {
		cfg.Description = spec.Description
	}
	if spec.Name != "" {
		cfg.Name = spec.Name
	}
	if s, ok := base.(*types.VMwareDVSConfigSpec); ok && s.MaxMtu != 0 {
		cfg.MaxMtu = s.MaxMtu
	}
	before := cfg.Host
	cfg.Host = nil
	for _, h := range d.Summary.HostMember {
		cfg.Host = append(cfg.Host, types.DistributedVirtualSwitchHostMember{
			Status: "up",
			Config: types.DistributedVirtualSwitchHostMemberConfigInfo{
				Host: &h, MaxProxySwitchPorts: 512, Backing: memberBacking(h, spec.Host, before),
			},
		})
	}
	cfg.ConfigVersion = nextVersion(cfg.ConfigVersion)
	ctx.Update(d.DistributedVirtualSwitch, []types.PropertyChange{
		{Name: "config", Val: types.BaseDVSConfigInfo(&cfg)},
		{Name: "summary.numHosts", Val: int32(len(d.Summary.HostMember))},
	})
}

// uplinks makes the uplink ports of a host that joins and removes those of one that leaves.
func (d *switchMethods) uplinks(h types.DistributedVirtualSwitchHostMemberConfigSpec, cfg *types.VMwareDVSConfigInfo) {
	names := cfg.UplinkPortPolicy.(*types.DVSNameArrayUplinkPortPolicy).UplinkPortName
	changes := newPortChanges()
	defer func() { d.v.publish(changes) }()
	d.v.mu.Lock()
	defer d.v.mu.Unlock()
	s := d.v.switchOf(d.DistributedVirtualSwitch)
	for _, r := range cfg.UplinkPortgroup {
		g := s.portgroups[r.Value]
		changes.touched[g.key] = true
		switch types.ConfigSpecOperation(h.Operation) {
		case types.ConfigSpecOperationAdd:
			for i, k := range s.grow(g, len(names)) {
				host := h.Host
				s.ports[k].name, s.ports[k].host = names[i], &host
			}
		case types.ConfigSpecOperationRemove:
			for _, k := range slices.Clone(g.ports) {
				if p := s.ports[k]; p.host != nil && *p.host == h.Host {
					s.removePort(p)
				}
			}
		}
	}
}

// DestroyTask refuses while a port is connected.
func (d *switchMethods) DestroyTask(ctx *simulator.Context, req *types.Destroy_Task) soap.HasFault {
	return d.v.tasks.around(d.Self, func(stock execution) execution {
		return func(t *simulator.Task) (types.AnyType, types.BaseMethodFault) {
			d.v.mu.Lock()
			used := d.v.switchOf(d.DistributedVirtualSwitch).connected(nil) != nil
			d.v.mu.Unlock()
			if used {
				return nil, &types.ResourceInUse{Type: "VmwareDistributedVirtualSwitch", Name: d.Name}
			}
			result, fault := stock(t)
			if fault == nil {
				d.v.mu.Lock()
				delete(d.v.switches, d.Self)
				d.v.mu.Unlock()
			}
			return result, fault
		}
	}, func() soap.HasFault { return d.DistributedVirtualSwitch.DestroyTask(ctx, req) })
}

// LookupDvPortGroup finds a portgroup of this switch by key.
func (d *switchMethods) LookupDvPortGroup(_ *simulator.Context, req *types.LookupDvPortGroup) soap.HasFault {
	for _, r := range d.Portgroup {
		if r.Value == req.PortgroupKey {
			return &methods.LookupDvPortGroupBody{Res: &types.LookupDvPortGroupResponse{Returnval: &r}}
		}
	}
	return &methods.LookupDvPortGroupBody{Fault_: soapFault(&types.NotFound{})}
}

// QueryDvsByUuid finds a switch by uuid; none is an answer too.
func (m *switchManagerMethods) QueryDvsByUuid(_ *simulator.Context, req *types.QueryDvsByUuid) soap.HasFault {
	body := &methods.QueryDvsByUuidBody{Res: &types.QueryDvsByUuidResponse{}}
	m.v.mu.Lock()
	defer m.v.mu.Unlock()
	if s := m.v.switchByUUID(req.Uuid); s != nil {
		self := s.self
		body.Res.Returnval = &self
	}
	return body
}
