package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/google/uuid"

	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/simulator/vpx"
	"github.com/vmware/govmomi/vim25/methods"
	"github.com/vmware/govmomi/vim25/soap"
	"github.com/vmware/govmomi/vim25/types"
)

// builder makes the inventory of a site by calling the simulator's own methods
// without SOAP: stock's model builder waits 20 ms for each task.
type builder struct {
	site *site
	v    *vcenter
	dir  string // of the datastore's files

	datacenter *simulator.Datacenter
	clusters   map[string]*simulator.ClusterComputeResource // by name
	dvs        *switchMethods
	hosts      map[string]ref
	portgroups map[string]string // keys by name
}

const (
	datacenterName = "DC0"
	clusterName    = "DC0_C0"
	datastoreName  = "LocalDS_0"
)

// buildVcenter makes the vCenter of a site, without a server. Files of VMs go below dir.
func buildVcenter(w *world, s *site, dir string) (*vcenter, error) {
	content := vpx.ServiceContent
	content.About.ApiVersion = s.APIVersion
	ctx, si := simulator.NewServiceInstance(simulator.NewContext(), content, vpx.RootFolder)
	if s.VCenter.InstanceUUID != "" {
		si.Content.About.InstanceUuid = s.VCenter.InstanceUUID
	}
	b := &builder{
		site: s, v: newVcenter(w, simulator.New(ctx, si)), dir: dir,
		hosts: map[string]ref{}, clusters: map[string]*simulator.ClusterComputeResource{}, portgroups: map[string]string{},
	}
	for _, step := range []func() error{b.makeTree, b.makeHosts, b.makeNetworks, b.makeSwitch, b.makePortgroups, b.makeVMs} {
		if err := step(); err != nil {
			return nil, err
		}
	}
	b.v.worker.sync()
	return b.v, nil
}

// failed describes a fault of the simulator while the site is built.
func failed(what string, f types.BaseMethodFault) error { return fmt.Errorf("%s: %T %+v", what, f, f) }

func fail(what string, f *soap.Fault) error { return fmt.Errorf("%s: %+v", what, f.Detail.Fault) }

func (b *builder) wait(what string, task ref) (types.AnyType, error) {
	result, f := waitTask(b.v.newContext(), task)
	if f != nil {
		return nil, failed(what, f)
	}
	return result, nil
}

func (b *builder) makeTree() error {
	ctx, m := b.v.newContext(), b.v.registry
	root := lookup[*simulator.Folder](m, vpx.RootFolder.Self)
	dc := root.CreateDatacenter(ctx, &types.CreateDatacenter{This: root.Self, Name: datacenterName}).(*methods.CreateDatacenterBody)
	if dc.Fault_ != nil {
		return fail("datacenter", dc.Fault_)
	}
	b.datacenter = lookup[*simulator.Datacenter](m, dc.Res.Returnval)
	folder := lookup[*simulator.Folder](m, b.datacenter.HostFolder)
	for _, h := range b.site.Hosts {
		if b.clusters[h.Cluster] != nil {
			continue
		}
		cl := folder.CreateClusterEx(ctx, &types.CreateClusterEx{This: folder.Self, Name: h.Cluster}).(*methods.CreateClusterExBody)
		if cl.Fault_ != nil {
			return fail("cluster "+h.Cluster, cl.Fault_)
		}
		b.clusters[h.Cluster] = lookup[*simulator.ClusterComputeResource](m, cl.Res.Returnval)
	}
	return nil
}

// clusterOf is the cluster that a host of the site is in.
func (b *builder) clusterOf(host string) *simulator.ClusterComputeResource {
	for _, h := range b.site.Hosts {
		if h.Name == host {
			return b.clusters[h.Cluster]
		}
	}
	return nil
}

func (b *builder) makeHosts() error {
	datastores := append([]string{datastoreName}, b.site.Datastores...)
	for _, name := range datastores {
		if err := os.MkdirAll(filepath.Join(b.dir, name), 0o700); err != nil {
			return err
		}
	}
	for _, h := range b.site.Hosts {
		ctx := b.v.newContext()
		cluster := b.clusters[h.Cluster]
		add := cluster.AddHostTask(ctx, &types.AddHost_Task{
			This: cluster.Self, AsConnected: true, Spec: types.HostConnectSpec{HostName: h.Name},
		}).(*methods.AddHost_TaskBody)
		result, err := b.wait("host "+h.Name, add.Res.Returnval)
		if err != nil {
			return err
		}
		host := lookup[*simulator.HostSystem](b.v.registry, result.(ref))
		b.hosts[h.Name] = host.Self
		ds := lookup[*simulator.HostDatastoreSystem](b.v.registry, *host.ConfigManager.DatastoreSystem)
		for _, name := range datastores {
			body := ds.CreateLocalDatastore(b.v.newContext(), &types.CreateLocalDatastore{
				This: ds.Self, Name: name, Path: filepath.Join(b.dir, name),
			})
			if f := body.Fault(); f != nil {
				return fail("datastore "+name+" of "+h.Name, f)
			}
		}
	}
	return nil
}

func (b *builder) makeNetworks() error {
	host := lookup[*simulator.HostSystem](b.v.registry, b.hosts[b.site.Hosts[0].Name])
	ns := lookup[*simulator.HostNetworkSystem](b.v.registry, *host.ConfigManager.NetworkSystem)
	for _, n := range b.site.StandardNetworks {
		if n == defaultNetwork {
			continue // every datacenter has it
		}
		body := ns.AddPortGroup(b.v.newContext(), &types.AddPortGroup{
			This: ns.Self, Portgrp: types.HostPortGroupSpec{Name: n, VswitchName: "vSwitch0"},
		})
		if f := body.Fault(); f != nil {
			return fail("network "+n, f)
		}
	}
	return nil
}

func (b *builder) makeSwitch() error {
	folder := &folderMethods{lookup[*simulator.Folder](b.v.registry, b.datacenter.NetworkFolder), b.v}
	create := folder.CreateDVSTask(b.v.newContext(), &types.CreateDVS_Task{Spec: types.DVSCreateSpec{
		ConfigSpec: &types.VMwareDVSConfigSpec{DVSConfigSpec: types.DVSConfigSpec{Name: b.site.DVS}},
	}}).(*methods.CreateDVS_TaskBody)
	result, err := b.wait("switch "+b.site.DVS, create.Res.Returnval)
	if err != nil {
		return err
	}
	b.dvs = &switchMethods{lookup[*simulator.DistributedVirtualSwitch](b.v.registry, result.(ref)), b.v}
	var members []types.DistributedVirtualSwitchHostMemberConfigSpec
	for _, h := range b.site.Hosts {
		members = append(members, types.DistributedVirtualSwitchHostMemberConfigSpec{Operation: "add", Host: b.hosts[h.Name]})
	}
	var pvlans []types.VMwareDVSPvlanConfigSpec
	for _, p := range b.site.Pvlans {
		pvlans = append(pvlans, types.VMwareDVSPvlanConfigSpec{PvlanEntry: p.entry(), Operation: "add"})
	}
	join := b.dvs.ReconfigureDvsTask(b.v.newContext(), &types.ReconfigureDvs_Task{
		This: b.dvs.Self, Spec: &types.VMwareDVSConfigSpec{DVSConfigSpec: types.DVSConfigSpec{Host: members}, PvlanConfigSpec: pvlans},
	}).(*methods.ReconfigureDvs_TaskBody)
	_, err = b.wait("hosts of switch "+b.site.DVS, join.Res.Returnval)
	return err
}

func (b *builder) makePortgroups() error {
	if len(b.site.Portgroups) == 0 {
		return nil
	}
	var specs []types.DVPortgroupConfigSpec
	for _, g := range b.site.Portgroups {
		specs = append(specs, types.DVPortgroupConfigSpec{
			Name: g.Name, Type: earlyBinding, NumPorts: g.Ports, AutoExpand: types.NewBool(true),
			DefaultPortConfig: &types.VMwareDVSPortSetting{Vlan: g.vlan()},
		})
	}
	add := b.dvs.AddDVPortgroupTask(b.v.newContext(), &types.AddDVPortgroup_Task{
		This: b.dvs.Self, Spec: specs,
	}).(*methods.AddDVPortgroup_TaskBody)
	if _, err := b.wait("portgroups", add.Res.Returnval); err != nil {
		return err
	}
	b.v.mu.Lock()
	defer b.v.mu.Unlock()
	for _, g := range b.v.switchOf(b.dvs.DistributedVirtualSwitch).portgroups {
		b.portgroups[g.name] = g.key
	}
	return nil
}

func (g *portgroupSpec) vlan() types.BaseVmwareDistributedVirtualSwitchVlanSpec {
	if g.Trunk == nil {
		spec := &types.VmwareDistributedVirtualSwitchVlanIdSpec{}
		if g.VLAN != nil {
			spec.VlanId = *g.VLAN
		}
		return spec
	}
	spec := &types.VmwareDistributedVirtualSwitchTrunkVlanSpec{}
	for _, r := range g.Trunk {
		spec.VlanId = append(spec.VlanId, types.NumericRange{Start: r[0], End: r[1]})
	}
	return spec
}

func (b *builder) makeVMs() error {
	for _, h := range b.site.Hosts {
		if h.VRouter == nil {
			continue
		}
		vm := vmSpec{
			Name: h.VRouter.Name, Host: h.Name, Power: "on", SMBIOSUUID: h.VRouter.SMBIOSUUID,
			Networks: []string{b.site.StandardNetworks[0], h.VRouter.TrunkPortgroup},
		}
		if err := b.makeVM(&vm, map[int]string{1: h.VRouter.TrunkMAC}); err != nil {
			return err
		}
	}
	listed := len(b.site.VMs)
	if b.site.Generate != nil {
		listed -= b.site.Generate.VMs
	}
	for i := range b.site.VMs[:listed] {
		if err := b.makeVM(&b.site.VMs[i], nil); err != nil {
			return err
		}
	}
	return b.makeTogether(b.site.VMs[listed:])
}

// buildersAtOnce is how many generated VMs are made at a time: each waits for
// its tasks most of the time.
const buildersAtOnce = 16

// makeTogether makes VMs whose order does not matter.
func (b *builder) makeTogether(vms []vmSpec) error {
	todo := make(chan *vmSpec, len(vms))
	for i := range vms {
		todo <- &vms[i]
	}
	close(todo)
	outcomes := make(chan error, buildersAtOnce)
	for range buildersAtOnce {
		go func() {
			for vm := range todo {
				if err := b.makeVM(vm, nil); err != nil {
					outcomes <- err
					return
				}
			}
			outcomes <- nil
		}()
	}
	var failures []error
	for range buildersAtOnce {
		failures = append(failures, <-outcomes)
	}
	return errors.Join(failures...)
}

// makeVM creates a VM; macs are addresses set by hand, by position of the NIC.
func (b *builder) makeVM(vm *vmSpec, macs map[int]string) error {
	smbios := vm.SMBIOSUUID
	if smbios == "" {
		smbios = siteUUID("smbios", vm.Name)
	}
	spec := types.VirtualMachineConfigSpec{
		Name: vm.Name, Uuid: smbios, InstanceUuid: siteUUID("instance", vm.Name), GuestId: string(types.VirtualMachineGuestOsIdentifierOtherGuest),
		NumCPUs: 1, MemoryMB: 64,
		Files: &types.VirtualMachineFileInfo{VmPathName: "[" + datastoreName + "]"},
	}
	for i, n := range vm.Networks {
		card := types.VirtualEthernetCard{VirtualDevice: types.VirtualDevice{Backing: b.backing(n)}}
		if mac := macs[i]; mac != "" {
			card.MacAddress, card.AddressType = mac, string(types.VirtualEthernetCardMacTypeManual)
		}
		spec.DeviceChange = append(spec.DeviceChange, &types.VirtualDeviceConfigSpec{
			Operation: types.VirtualDeviceConfigSpecOperationAdd,
			Device:    &types.VirtualVmxnet3{VirtualVmxnet: types.VirtualVmxnet{VirtualEthernetCard: card}},
		})
	}
	folder := &folderMethods{lookup[*simulator.Folder](b.v.registry, b.datacenter.VmFolder), b.v}
	host := b.hosts[vm.Host]
	ctx := b.v.newContext()
	var create *methods.CreateVM_TaskBody
	ctx.WithLock(folder.Folder, func() { // as for a call from outside: taskWrappers.around counts on it
		create = folder.CreateVMTask(ctx, &types.CreateVM_Task{
			This: folder.Self, Config: spec, Pool: *b.clusterOf(vm.Host).ResourcePool, Host: &host,
		}).(*methods.CreateVM_TaskBody)
	})
	result, err := b.wait("VM "+vm.Name, create.Res.Returnval)
	if err != nil || vm.Power == "off" {
		return err
	}
	o := lookup[*simulator.VirtualMachine](b.v.registry, result.(ref))
	on := o.PowerOnVMTask(b.v.newContext(), &types.PowerOnVM_Task{This: o.Self}).(*methods.PowerOnVM_TaskBody)
	_, err = b.wait("power of VM "+vm.Name, on.Res.Returnval)
	return err
}

// siteUUID makes VMs of the site file the same ones after a restart.
func siteUUID(kind, name string) string {
	return uuid.NewSHA1(uuid.NameSpaceURL, []byte("vcsim/"+kind+"/"+name)).String()
}

func (b *builder) backing(network string) types.BaseVirtualDeviceBackingInfo {
	if b.site.isPortgroup(network) {
		return &types.VirtualEthernetCardDistributedVirtualPortBackingInfo{
			Port: types.DistributedVirtualSwitchPortConnection{SwitchUuid: b.dvs.Uuid, PortgroupKey: b.portgroups[network]},
		}
	}
	return &types.VirtualEthernetCardNetworkBackingInfo{
		VirtualDeviceDeviceBackingInfo: types.VirtualDeviceDeviceBackingInfo{DeviceName: network},
	}
}
